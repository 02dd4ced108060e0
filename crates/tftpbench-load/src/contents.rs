//! File contents as a function of (seed, file, offset), so that every byte can be checked and none is stored.
//!
//! Never holds a file in memory, except one that the user gave to verify against. Used by the virtual clients
//! to send and to verify, and by the Python side to make and compare files on disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

const WORD: usize = 4;
/// Checking and file I/O go chunk by chunk; one page keeps the scratch on the stack and in L1.
const CHUNK: usize = 4096;

/// What the bytes of one file must be.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Generated: pseudo-random words from two keys.
    Generated(Generated),
    /// The bytes of a file that the user named.
    Given(Arc<[u8]>),
}

/// Two keys from which every word of a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    multiplied: u32,
    added: u32,
}

impl Contents {
    /// Writes the bytes from `offset` on into `buf`; a given file ends where it ends (zeros follow).
    pub fn fill(&self, offset: u64, buf: &mut [u8]) {
        match self {
            Contents::Generated(generated) => generated.fill(offset, buf),
            Contents::Given(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[]);
                let known = rest.len().min(buf.len());
                buf[..known].copy_from_slice(&rest[..known]);
                buf[known..].fill(0);
            }
        }
    }

    /// The index in `payload` of the first byte that is not what the file has at `offset + index`.
    pub fn first_difference(&self, offset: u64, payload: &[u8]) -> Option<usize> {
        let equal = match self {
            Contents::Generated(generated) => generated.surely_equals(offset, payload),
            Contents::Given(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[]);
                rest.get(..payload.len()) == Some(payload)
            }
        };
        if equal {
            return None;
        }
        let mut expected = [0u8; CHUNK];
        for (number, chunk) in payload.chunks(CHUNK).enumerate() {
            let start = number * CHUNK;
            self.fill(offset + start as u64, &mut expected[..chunk.len()]);
            if chunk != &expected[..chunk.len()] {
                let at = chunk.iter().zip(&expected).position(|(got, want)| got != want);
                return at.map(|index| start + index);
            }
        }
        None
    }
}

impl Generated {
    /// The contents of file number `file` under `seed`.
    pub fn new(seed: u64, file: u64) -> Generated {
        let key = mix64(seed.wrapping_add(mix64(file ^ 0x5446_5450)));
        Generated { multiplied: key as u32, added: (key >> 32) as u32 }
    }

    /// Writes the bytes from `offset` on into `buf`.
    pub fn fill(&self, offset: u64, buf: &mut [u8]) {
        let mut word = offset / WORD as u64;
        let head = (offset % WORD as u64) as usize;
        let mut rest = buf;
        if head != 0 {
            let (first, after) = rest.split_at_mut(rest.len().min(WORD - head));
            first.copy_from_slice(&self.word(word).to_le_bytes()[head..head + first.len()]);
            rest = after;
            word += 1;
        }
        // 32-bit lanes with plain indices: the compiler turns this loop into vector code.
        let whole = rest.len() / WORD;
        let (words, tail) = rest.split_at_mut(whole * WORD);
        for (index, bytes) in words.chunks_exact_mut(WORD).enumerate() {
            bytes.copy_from_slice(&self.word(word + index as u64).to_le_bytes());
        }
        let count = tail.len();
        tail.copy_from_slice(&self.word(word + whole as u64).to_le_bytes()[..count]);
    }

    /// Whether `payload` is what lies at `offset`. One pass, nothing stored; false also where the offset is in mid-word.
    fn surely_equals(&self, offset: u64, payload: &[u8]) -> bool {
        let word = offset / WORD as u64;
        let (words, tail) = payload.as_chunks::<WORD>();
        let differences = words.iter().enumerate().fold(0, |differences, (index, bytes)| {
            differences | (u32::from_le_bytes(*bytes) ^ self.word(word + index as u64))
        });
        offset.is_multiple_of(WORD as u64)
            && differences == 0
            && *tail == self.word(word + words.len() as u64).to_le_bytes()[..tail.len()]
    }

    /// One 32-bit word of the file: the finaliser of MurmurHash3 over the word's index and the keys.
    #[inline(always)]
    fn word(&self, index: u64) -> u32 {
        let high = (index >> 32) as u32;
        let mut x = (index as u32 ^ self.multiplied).wrapping_add(high.wrapping_mul(0x27d4_eb2f));
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        (x ^ (x >> 16)).wrapping_add(self.added)
    }
}

/// Creates (or replaces) the file `path` with the first `size` bytes of file number `file`.
pub fn write_file(path: &Path, seed: u64, file: u64, size: u64) -> io::Result<()> {
    let contents = Generated::new(seed, file);
    let mut out = File::create(path)?;
    let mut chunk = [0u8; CHUNK];
    let mut offset = 0;
    while offset < size {
        let length = CHUNK.min(usize::try_from(size - offset).unwrap_or(CHUNK));
        contents.fill(offset, &mut chunk[..length]);
        out.write_all(&chunk[..length])?;
        offset += length as u64;
    }
    Ok(())
}

/// The offset of the first byte of `path` that is wrong, missing or too much; `None` if the file is right.
pub fn first_difference_in_file(path: &Path, seed: u64, file: u64, size: u64) -> io::Result<Option<u64>> {
    let contents = Contents::Generated(Generated::new(seed, file));
    let mut source = File::open(path)?;
    let mut chunk = [0u8; CHUNK];
    let mut offset = 0;
    loop {
        let length = source.read(&mut chunk)?;
        if length == 0 {
            return Ok((offset < size).then_some(offset));
        }
        if let Some(index) = contents.first_difference(offset, &chunk[..length]) {
            return Ok(Some((offset + index as u64).min(size)));
        }
        offset += length as u64;
        if offset > size {
            return Ok(Some(size));
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads neighbouring seeds far apart.
fn mix64(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_file_is_the_same_bytes() {
        let contents = Generated::new(7, 3);
        let mut whole = vec![0u8; 10_000];
        contents.fill(0, &mut whole);
        for (offset, length) in [(0, 1), (1, 2), (3, 9), (4, 512), (511, 514), (9_999, 1), (5_001, 0)] {
            let mut part = vec![0u8; length];
            contents.fill(offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + length], "{offset}+{length}");
        }
    }

    #[test]
    fn files_and_seeds_differ() {
        let bytes = |seed, file| {
            let mut buf = [0u8; 64];
            Generated::new(seed, file).fill(0, &mut buf);
            buf
        };
        assert_ne!(bytes(1, 0), bytes(1, 1));
        assert_ne!(bytes(1, 0), bytes(2, 0));
        assert_eq!(bytes(1, 0), bytes(1, 0));
    }

    #[test]
    fn words_beyond_sixteen_gibibytes_do_not_repeat_the_beginning() {
        let contents = Generated::new(1, 1);
        let (mut low, mut high) = ([0u8; 64], [0u8; 64]);
        contents.fill(0, &mut low);
        contents.fill(1 << 34, &mut high);
        assert_ne!(low, high);
    }

    #[test]
    fn the_first_wrong_byte_is_found_wherever_it_is() {
        let generated = Contents::Generated(Generated::new(1, 1));
        let mut given = vec![0u8; 10_000];
        generated.fill(0, &mut given);
        let given = Contents::Given(given.into());
        for (contents, offset) in [(&generated, 100), (&generated, 101), (&given, 100)] {
            let mut payload = vec![0u8; 9_003];
            contents.fill(offset, &mut payload);
            assert_eq!(contents.first_difference(offset, &payload), None);
            for index in [0, 511, 4_095, 4_096, 8_999, 9_000, 9_002] {
                payload[index] ^= 1;
                assert_eq!(contents.first_difference(offset, &payload), Some(index));
                payload[index] ^= 1;
            }
        }
    }

    #[test]
    fn a_file_that_is_short_long_or_altered_differs_at_that_offset() {
        let dir = std::env::temp_dir().join(format!("tftpbench-contents-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("file");
        write_file(&path, 9, 2, 10_000).unwrap();
        assert_eq!(first_difference_in_file(&path, 9, 2, 10_000).unwrap(), None);
        assert_eq!(first_difference_in_file(&path, 9, 2, 10_001).unwrap(), Some(10_000));
        assert_eq!(first_difference_in_file(&path, 9, 2, 9_999).unwrap(), Some(9_999));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5_000] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(first_difference_in_file(&path, 9, 2, 10_000).unwrap(), Some(5_000));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
