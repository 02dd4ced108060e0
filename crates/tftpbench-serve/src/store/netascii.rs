//! A file served as netascii: encoded while it is read, and never held. How long it is on the wire is known once its end has
//! been read: to count it first would be to read a file of any size within one request. Reading goes forwards, and
//! back to where some earlier read began, as far as a window reaches.

use std::collections::VecDeque;

use tftpbench_proto::netascii::{Encoder, encoded_len};

use super::stored_file::StoredFile;
use crate::refusal::Refusal;

/// Files up to this size are counted within the request for them, for clients that ask for `tsize`: some 0.3 ms.
const COUNT_BYTES_MAX: u64 = 1 << 20;

/// File bytes encoded at one go.
const SCRATCH_BYTES: usize = 4096;

/// Encodes while it reads.
#[derive(Debug)]
pub(crate) struct NetasciiSource {
    file: StoredFile,
    file_length: u64,
    /// Known once the end was reached.
    length: Option<u64>,
    /// Where the latest reads began, and last where the next one does.
    marks: VecDeque<Mark>,
    marks_max: usize,
}

/// A place from which can be read.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    encoded: u64,
    file: u64,
    encoder: Encoder,
}

impl NetasciiSource {
    pub(crate) fn new(file: StoredFile) -> NetasciiSource {
        let file_length = file.length();
        let marks = VecDeque::from([Mark::default()]);
        NetasciiSource { file, file_length, length: None, marks, marks_max: 2 }
    }

    /// Bytes on the wire, as soon as they are known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// As much as may come from `offset` on; `None` beyond the end.
    pub(crate) fn left_max(&self, offset: u64) -> Option<u64> {
        self.length.unwrap_or(self.file_length.saturating_mul(2)).checked_sub(offset)
    }

    /// Bytes on the wire, where counting them takes next to no time. It reads the file for itself.
    pub(crate) fn count(&mut self) -> Result<Option<u64>, Refusal> {
        if self.file_length > COUNT_BYTES_MAX {
            return Ok(None);
        }
        let mut file = vec![0; self.file_length as usize];
        self.file.read_at(0, &mut file)?;
        Ok(Some(encoded_len(&file)))
    }

    /// Reads may go back by so many.
    pub(crate) fn keep_marks(&mut self, reads: u64) {
        self.marks_max = usize::try_from(reads).unwrap_or(usize::MAX).saturating_add(2);
    }

    /// Adds up to `length` bytes from `offset` on, which is where a read began lately, or where the last one ended: so many,
    /// or fewer and then the end is reached.
    pub(crate) fn append(&mut self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        // Nothing else is ever asked for: `marks_max` reaches as far back as the protocol goes.
        let known = self.marks.iter().rposition(|mark| mark.encoded == offset).ok_or(Refusal::CHANGED)?;
        let mut at = self.marks[known];
        let (before, end) = (bytes.len(), bytes.len() + length);
        bytes.resize(end, 0);
        let filled = self.encode(&mut at, &mut bytes[before..])?;
        bytes.truncate(before + filled);
        if known + 1 == self.marks.len() && filled > 0 {
            self.marks.push_back(at);
            if self.marks.len() > self.marks_max {
                self.marks.pop_front();
            }
        }
        Ok(())
    }

    fn encode(&mut self, at: &mut Mark, buf: &mut [u8]) -> Result<usize, Refusal> {
        let mut scratch = [0; SCRATCH_BYTES];
        let mut filled = 0;
        loop {
            let (rest, room) = (self.file_length - at.file, (buf.len() - filled) as u64);
            let input = &mut scratch[..rest.min(room).min(SCRATCH_BYTES as u64) as usize];
            // At the end of nothing, too: the file must still be what it was.
            self.file.read_at(at.file, input)?;
            let step = at.encoder.encode(input, &mut buf[filled..]);
            at.file += step.read as u64;
            at.encoded += step.written as u64;
            filled += step.written;
            if at.file == self.file_length && at.encoder.is_clean() {
                self.length = Some(at.encoded);
                return Ok(filled);
            }
            if filled == buf.len() {
                return Ok(filled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_testclient::Folder;

    use super::*;
    use crate::paths::{FilePath, Root};
    use crate::store::disk::DiskFile;

    fn source(folder: &Folder) -> NetasciiSource {
        let root = Root::open(folder.path()).unwrap();
        let file = DiskFile::open(&root, &FilePath::parse(b"f").unwrap()).unwrap();
        NetasciiSource::new(StoredFile::Disk(file))
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| b"\n\rtext.\n"[at * 7 % 8]).collect()
    }

    fn wire(text: &[u8]) -> Vec<u8> {
        let encode = |&byte: &u8| match byte {
            b'\n' => b"\r\n".to_vec(),
            b'\r' => b"\r\0".to_vec(),
            other => vec![other],
        };
        text.iter().flat_map(encode).collect()
    }

    #[test]
    fn each_part_reads_as_it_stands_in_the_whole_and_so_it_does_again() {
        let folder = Folder::new();
        for length in [0, 1, 2, 511, 512, 4096, 20_000] {
            let text = text(length);
            folder.put("f", &text);
            let wire = wire(&text);
            for size in [1, 511, 512, 4097, 40_000].into_iter().filter(|size| wire.len() / size < 5000) {
                let mut source = source(&folder);
                source.keep_marks(3);
                assert_eq!(source.count(), Ok(Some(wire.len() as u64)));
                for number in 0..=wire.len() / size {
                    // This part, and three back.
                    for number in [number, number.saturating_sub(3), number] {
                        let (mut part, start) = (vec![7], number * size);
                        source.append(start as u64, size, &mut part).unwrap();
                        let end = wire.len().min(start + size);
                        assert!(part[1..] == wire[start..end], "{number} of {size} of {length}");
                        assert!(source.marks.len() <= 5);
                    }
                }
                assert_eq!(source.length(), Some(wire.len() as u64));
                assert_eq!(source.left_max(wire.len() as u64 + 1), None);
            }
        }
    }

    #[test]
    fn the_end_is_known_with_the_part_that_reaches_it_and_not_before() {
        let folder = Folder::new();
        folder.put("f", &[b'\n'; 1000]);
        let mut source = source(&folder);
        for (offset, length) in [(0, None), (1000, Some(2000)), (2000, Some(2000))] {
            source.append(offset, 1000, &mut Vec::new()).unwrap();
            assert_eq!(source.length(), length);
        }
    }

    #[test]
    fn the_state_of_the_file_is_looked_at_with_its_end_and_behind_it() {
        let folder = Folder::new();
        folder.put("f", &text(512));
        let mut whole = source(&folder);
        whole.append(0, 2000, &mut Vec::new()).unwrap();
        let mut cut = source(&folder);
        cut.append(0, 100, &mut Vec::new()).unwrap();
        folder.put("f", b"");
        assert_eq!(whole.append(whole.length().unwrap(), 512, &mut Vec::new()), Err(Refusal::CHANGED));
        assert_eq!(cut.append(100, 512, &mut Vec::new()), Err(Refusal::CHANGED));
    }

    #[test]
    fn a_large_file_is_not_counted() {
        let folder = Folder::new();
        let file = std::fs::File::create(folder.file("f")).unwrap();
        file.set_len(1 << 40).unwrap();
        let mut source = source(&folder);
        assert_eq!((source.count(), source.length()), (Ok(None), None));
        assert_eq!(source.left_max(5), Some((2 << 40) - 5));
        let mut bytes = Vec::new();
        source.append(0, 512, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 512]);
    }
}
