//! Blocks of lz4, <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>, behind the length of what
//! they hold.

use lz4_flex::block::{compress_into, decompress, get_maximum_output_size};

/// A block of lz4 holds at most so many times its own length.
const MAX_RATIO: usize = 256;
/// Bytes of the length.
const LENGTH_BYTES: usize = size_of::<u32>();

/// `text` compressed; none if that is no shorter.
pub fn compressed(text: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(text.len()).ok()?;
    let mut block = vec![0; LENGTH_BYTES + get_maximum_output_size(text.len())];
    block[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    let used = LENGTH_BYTES + compress_into(text, &mut block[LENGTH_BYTES..]).ok()?;
    block.truncate(used);
    (used < text.len()).then_some(block)
}

/// Bytes of what was compressed; none if `block` cannot hold so many.
pub fn length_of(block: &[u8]) -> Option<usize> {
    let (length, block) = block.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (length <= block.len().saturating_mul(MAX_RATIO)).then_some(length)
}

/// What was compressed; none if `block` is not of that kind. Takes memory for [`length_of`] it.
pub fn decompressed(block: &[u8]) -> Option<Vec<u8>> {
    let length = length_of(block)?;
    let block = &block[LENGTH_BYTES..];
    let text = decompress(block, length).ok()?;
    (text.len() == length).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back() {
        for text in ["{}".to_owned(), "abc".repeat(1000), "\u{1f980}".repeat(77)] {
            let Some(block) = compressed(text.as_bytes()) else {
                assert_eq!(text, "{}");
                continue;
            };
            assert!(block.len() < text.len());
            assert_eq!(decompressed(&block).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn a_length_that_no_block_can_have_takes_no_memory() {
        let mut block = compressed("abc".repeat(1000).as_bytes()).expect("shorter");
        for length in [u32::MAX, 1 << 28, 2999, 3001, 0] {
            block[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            assert_eq!(decompressed(&block), None, "{length}");
        }
        assert_eq!(decompressed(&[1, 0, 0]), None);
        assert_eq!(decompressed(&[]), None);
    }
}
