export async function costOfCryptography() {}
