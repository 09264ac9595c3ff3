//! Texts on their way to JavaScript. Creating a string costs as much as copying a short session, so many short
//! texts share one string.

use napi::{
    bindgen_prelude::{Array, Env, ToNapiValue},
    check_status, sys,
};

use super::protocol::Answer;

/// A longer text gets a string of its own.
const SHARING_MAX_BYTES: usize = 2 << 10;
/// The approximate size of a shared string: a reference to one part keeps all of it in memory.
const SHARED_BYTES: usize = 8 << 10;

/// Strings for JavaScript, in the order of the rows that refer to them.
#[derive(Default)]
pub struct Texts {
    strings: Vec<Option<Text>>,
    /// The string that collects short texts; it is appended to `strings`.
    shared: Vec<u8>,
}

impl Texts {
    /// Adds the text of an answer, and returns the kind and the number of its row.
    pub fn add(&mut self, text: Vec<u8>) -> (Answer, f64) {
        // An ASCII character is one UTF-16 unit, so JavaScript finds its part without reading the others.
        if text.is_empty() || text.len() > SHARING_MAX_BYTES || !text.is_ascii() {
            self.push(Some(text));
            return (Answer::Text, 0.0);
        }
        if self.shared.len() + text.len() > SHARED_BYTES {
            self.end_shared();
        }
        if self.shared.is_empty() {
            self.shared.reserve(SHARED_BYTES);
        }
        self.shared.extend_from_slice(&text);
        (Answer::Part, text.len() as f64)
    }

    /// Adds a separate string, or null.
    pub fn push(&mut self, text: Option<Vec<u8>>) {
        self.end_shared();
        self.strings.push(text.map(Text::new));
    }

    fn end_shared(&mut self) {
        if !self.shared.is_empty() {
            let shared = std::mem::take(&mut self.shared);
            self.strings.push(Some(Text {
                bytes: shared,
                is_ascii: true,
            }));
        }
    }

    /// The strings as JavaScript sees them.
    pub fn into_array(mut self, env: &Env) -> napi::Result<Array<'_>> {
        self.end_shared();
        Array::from_vec(env, self.strings)
    }
}

/// Bytes that become a JavaScript string: latin1 for ASCII, which V8 copies without a check.
pub struct Text {
    bytes: Vec<u8>,
    is_ascii: bool,
}

impl Text {
    pub fn new(bytes: Vec<u8>) -> Self {
        let is_ascii = bytes.is_ascii();
        Self { bytes, is_ascii }
    }
}

#[expect(
    unsafe_code,
    reason = "napi has no safe way to a string without checking it as UTF-8 first"
)]
impl ToNapiValue for Text {
    unsafe fn to_napi_value(env: sys::napi_env, text: Self) -> napi::Result<sys::napi_value> {
        let Self { bytes, is_ascii } = text;
        let mut value = std::ptr::null_mut();
        let length = bytes.len() as isize;
        // SAFETY: `env` is the live environment this is called in, and the bytes are copied before
        // the call returns. Both functions take any bytes: latin1 all of them, UTF-8 replaces what
        // is malformed.
        let status = unsafe {
            if is_ascii {
                sys::napi_create_string_latin1(env, bytes.as_ptr().cast(), length, &mut value)
            } else {
                sys::napi_create_string_utf8(env, bytes.as_ptr().cast(), length, &mut value)
            }
        };
        check_status!(status, "A string could not be created")?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(mut texts: Texts) -> Vec<Option<usize>> {
        texts.end_shared();
        let lengths = texts
            .strings
            .iter()
            .map(|text| text.as_ref().map(|text| text.bytes.len()));
        lengths.collect()
    }

    #[test]
    fn short_texts_share_strings_and_the_others_stand_between_them_in_their_order() {
        let mut texts = Texts::default();
        assert_eq!(texts.add(b"abc".into()), (Answer::Part, 3.0));
        assert_eq!(texts.add(b"de".into()), (Answer::Part, 2.0));
        assert_eq!(texts.add(Vec::new()), (Answer::Text, 0.0));
        assert_eq!(texts.add("é".into()), (Answer::Text, 0.0));
        assert_eq!(texts.add(b"f".into()), (Answer::Part, 1.0));
        texts.push(None);
        let long = vec![b'x'; SHARING_MAX_BYTES + 1];
        assert_eq!(texts.add(long.clone()), (Answer::Text, 0.0));
        let expected = [Some(5), Some(0), Some(2), Some(1), None, Some(long.len())];
        assert_eq!(strings(texts), expected);
    }

    #[test]
    fn a_shared_string_is_bounded() {
        let mut texts = Texts::default();
        let count = 2 * SHARED_BYTES / SHARING_MAX_BYTES + 1;
        for _ in 0..count {
            texts.add(vec![b'x'; SHARING_MAX_BYTES]);
        }
        let expected = [SHARED_BYTES, SHARED_BYTES, SHARING_MAX_BYTES].map(Some);
        assert_eq!(strings(texts), expected);
    }
}
