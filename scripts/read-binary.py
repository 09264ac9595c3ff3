# python3 read-binary.py FILE: its format, processor, imports and exports as JSON, null if it is no ELF, PE or Mach-O.
import json
import sys

import lief

lief.logging.disable()
PROCESSORS = {
    lief.ELF.ARCH.X86_64: "x64",
    lief.ELF.ARCH.AARCH64: "arm64",
    lief.PE.Header.MACHINE_TYPES.AMD64: "x64",
    lief.PE.Header.MACHINE_TYPES.ARM64: "arm64",
    lief.MachO.Header.CPU_TYPE.X86_64: "x64",
    lief.MachO.Header.CPU_TYPE.ARM64: "arm64",
}


def describe(binary):
    facts = {"exports": [str(function.name) for function in binary.exported_functions]}
    if isinstance(binary, lief.ELF.Binary):
        needs = [need.name for library in binary.symbols_version_requirement for need in library.get_auxiliary_symbols()]
        paths = [entry for entry in binary.dynamic_entries if entry.tag in (lief.ELF.DynamicEntry.TAG.RPATH, lief.ELF.DynamicEntry.TAG.RUNPATH)]
        machine = binary.header.machine_type
        facts.update(format="ELF", libraries=list(binary.libraries), versions=needs, paths=[str(entry) for entry in paths])
    elif isinstance(binary, lief.PE.Binary):
        machine = binary.header.machine
        facts.update(format="PE", libraries=list(binary.libraries))
    else:
        machine = binary.header.cpu_type
        minimum = binary.build_version.minos if binary.has_build_version else binary.version_min.version
        libraries = [
            library.name
            for library in binary.libraries
            if library.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB
        ]
        facts.update(format="Mach-O", libraries=libraries, macos=list(minimum)[:2], signed=binary.has_code_signature)
    facts["processor"] = PROCESSORS.get(machine, str(machine))
    return facts


parsed = lief.parse(sys.argv[1])
print(json.dumps(parsed and describe(parsed)))
