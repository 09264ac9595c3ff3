//! Whatever is stored: no panic, and nothing opens that was not sealed under this key. What was sealed opens.
#![no_main]

use std::sync::LazyLock;

use connect_redis_native::sealing::{Halves, Key, Plaintext, Sealing};
use libfuzzer_sys::fuzz_target;

fn sealing(plaintext: Plaintext, compressed_from: Option<usize>) -> Sealing {
    let key = |id, byte| Key::new(id, &[byte; 32]).expect("a key");
    Sealing::new(
        vec![key("a", 1), key("b", 2)],
        plaintext,
        compressed_from,
        1 << 28,
        Vec::new(),
    )
}

static STORES: LazyLock<[Sealing; 3]> = LazyLock::new(|| {
    [
        sealing(Plaintext::Reject, None),
        sealing(Plaintext::Accept, Some(1)),
        sealing(Plaintext::Write, Some(1)),
    ]
});

fuzz_target!(|input: (&[u8], &[u8])| {
    let (key, text) = input;
    for store in STORES.iter() {
        let stored = store
            .seal(key, text, &mut Halves::of(1))
            .expect("sealed");
        if !text.starts_with(b"~1") {
            assert!(store.open(key, stored.clone()) == Ok(text.to_vec()) || text.is_empty());
        }
        let _ = store.open(text, stored);
        let _ = store.open(key, text.to_vec());
        let _ = store.resealed(key, text);
        for kind in ["~1s.a.", "~1sz.b.", "~1z.", "~1s."] {
            let stored = [kind.as_bytes(), text].concat();
            let opened = store.open(key, stored.clone());
            let is_compressed_only = kind == "~1z.";
            assert!(opened.is_err() || is_compressed_only);
        }
    }
    let strict = &STORES[0];
    assert!(text.is_empty() || strict.open(key, text.to_vec()).is_err());
});
