//! For any input: no panic, the same replies wherever the stream is cut, and the same first reply as the redis
//! crate.
#![no_main]

use connect_redis_native::connection::reader::{Frame, Malformed, Reader};
use libfuzzer_sys::fuzz_target;

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<Malformed>) {
    let mut reader = Reader::default();
    let mut frames = Vec::new();
    for piece in pieces {
        reader.feed(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(malformed) => return (frames, Some(malformed)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = read(std::iter::once(stream));
    assert_eq!(whole, read(stream.chunks(usize::from(size) + 1)));
    if let Some(Frame::Value(value)) = whole.0.first()
        && let Ok(expected) = redis::parse_redis_value(stream)
    {
        assert_eq!(*value, expected);
    }
});
