//! For any input from JavaScript: no panic, and a request for every row that begins one.
#![no_main]

use connect_redis_native::binding::{sealing::Sealers, submission::decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<[u16; 5]>, Vec<u16>)| {
    let (rows, text) = input;
    let rows: Vec<f64> = rows.into_iter().flatten().map(f64::from).collect();
    let requests = decode(&rows, &text, &Sealers::default());
    assert!(requests.len() <= rows.len() / 5);
    assert_eq!(requests.is_empty(), rows.len() < 5);
});
