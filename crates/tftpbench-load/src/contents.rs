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
    start: u32,
    step: u32,
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
        Generated::from_key(mix64(seed.wrapping_add(mix64(file ^ 0x5446_5450))))
    }

    fn from_key(key: u64) -> Generated {
        // An odd step visits all 2^32 values before one comes again.
        Generated { start: key as u32, step: (key >> 32) as u32 | 1 }
    }

    /// Writes the bytes from `offset` on into `buf`.
    pub fn fill(&self, offset: u64, buf: &mut [u8]) {
        let mut word = offset / WORD as u64;
        let head = (offset % WORD as u64) as usize;
        let mut rest = buf;
        if head != 0 {
            let (first, after) = rest.split_at_mut(rest.len().min(WORD - head));
            first.copy_from_slice(&self.word(word)[head..head + first.len()]);
            rest = after;
            word += 1;
        }
        while !rest.is_empty() {
            let here = usize::try_from((SPAN_WORDS - word % SPAN_WORDS) * WORD as u64).unwrap_or(usize::MAX);
            let (span, after) = rest.split_at_mut(rest.len().min(here));
            self.fill_span(word, span);
            rest = after;
            word += (here / WORD) as u64;
        }
    }

    fn fill_span(&self, word: u64, buf: &mut [u8]) {
        let Generated { mut start, step } = self.starting_at(word);
        let (words, tail) = buf.as_chunks_mut::<WORD>();
        let next = word + words.len() as u64;
        for bytes in words {
            *bytes = mixed(start).to_le_bytes();
            start = start.wrapping_add(step);
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.word(next)[..tail.len()]);
        }
    }

    /// Whether `payload` is what lies at `offset`. One pass, nothing stored; false also where the offset is in mid-word or
    /// the payload reaches into the next span.
    fn surely_equals(&self, offset: u64, payload: &[u8]) -> bool {
        let word = offset / WORD as u64;
        let (words, tail) = payload.as_chunks::<WORD>();
        let next = word + words.len() as u64;
        let differs = pulp::Arch::new().dispatch(|| differs(words, self.starting_at(word)));
        offset.is_multiple_of(WORD as u64)
            && word / SPAN_WORDS == next / SPAN_WORDS
            && !differs
            && (tail.is_empty() || *tail == self.word(next)[..tail.len()])
    }

    /// One word of the file, as it lies there.
    fn word(&self, index: u64) -> [u8; WORD] {
        mixed(self.starting_at(index).start).to_le_bytes()
    }

    /// The keys with which `word` is the first one.
    fn starting_at(&self, word: u64) -> Generated {
        let Generated { start, step } = match word / SPAN_WORDS {
            0 => *self,
            span => {
                Generated::from_key(mix64(u64::from(self.step) << 32 | u64::from(self.start)) ^ mix64(span))
            }
        };
        Generated { start: start.wrapping_add((word as u32).wrapping_mul(step)), step }
    }
}

/// Whether any word is another than these keys make. Inlined where the compiler may use all that this processor has.
#[inline(always)]
fn differs(words: &[[u8; WORD]], Generated { mut start, step }: Generated) -> bool {
    // A running sum, not the word's index times the step: any x86-64 adds four words at once, but multiplies two.
    let mut differences = 0;
    for bytes in words {
        differences |= u32::from_le_bytes(*bytes) ^ mixed(start);
        start = start.wrapping_add(step);
    }
    differences != 0
}

/// Words after which a sequence would repeat itself: other keys are taken then.
const SPAN_WORDS: u64 = 1 << 32;

/// Hides the regularity of the sequence in a few operations that any vector unit has. One to one, so that all words of a
/// span are different.
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 15;
    x.wrapping_add(x << 9)
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

/// SplitMix64's step (Steele, Lea and Flood, 2014): number `i` of a stream is `mix64(start + i * step)`.
pub(crate) const SPLITMIX_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of SplitMix64 and its finaliser: spreads neighbouring seeds far apart.
pub(crate) fn mix64(value: u64) -> u64 {
    let mut x = value.wrapping_add(SPLITMIX_STEP);
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
