//! A file served as netascii: random access to its encoded form without ever holding that form.
//! One scan at the start measures it and notes where each chunk begins, because the protocol needs the length first.
//! The scan reads the whole file inside the request: netascii is for text, not for images.

use tftpbench_proto::netascii::{Encoder, encoded_len};

use super::Source;
use crate::refusal::Refusal;

/// File bytes between two marks; a resend encodes at most this much again.
const CHUNK_BYTES: usize = 64 * 1024;

/// File bytes encoded at one go.
const SCRATCH_BYTES: usize = 4096;

/// Encodes while it reads.
#[derive(Debug)]
pub(crate) struct NetasciiSource {
    file: Source,
    length: u64,
    /// Where each chunk begins in the encoded form. Encoding maps byte by byte, so a chunk starts clean.
    marks: Vec<u64>,
    cursor: Cursor,
}

#[derive(Debug, Default)]
struct Cursor {
    encoded: u64,
    file: u64,
    encoder: Encoder,
}

impl NetasciiSource {
    pub(crate) fn scan(mut file: Source) -> Result<NetasciiSource, Refusal> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut length, mut at, mut marks) = (0, 0, Vec::new());
        while at < file.length() {
            marks.push(length);
            let part = part(&mut chunk, file.length() - at);
            file.read_at(at, part)?;
            at += part.len() as u64;
            length += encoded_len(part);
        }
        Ok(NetasciiSource { file, length, marks, cursor: Cursor::default() })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        if offset != self.cursor.encoded {
            self.seek(offset)?;
        }
        self.encode(buf)
    }

    fn seek(&mut self, offset: u64) -> Result<(), Refusal> {
        let chunk = self.marks.partition_point(|&mark| mark <= offset).saturating_sub(1);
        self.cursor = Cursor {
            // An empty file has no chunk.
            encoded: self.marks.get(chunk).copied().unwrap_or(0),
            file: (chunk * CHUNK_BYTES) as u64,
            encoder: Encoder::default(),
        };
        let mut skipped = [0; SCRATCH_BYTES];
        while self.cursor.encoded < offset {
            let part = part(&mut skipped, offset - self.cursor.encoded);
            self.encode(part)?;
        }
        Ok(())
    }

    fn encode(&mut self, buf: &mut [u8]) -> Result<(), Refusal> {
        let mut scratch = [0; SCRATCH_BYTES];
        let mut filled = 0;
        while filled < buf.len() {
            let room = buf.len() - filled;
            let rest = self.file.length() - self.cursor.file;
            let input = part(&mut scratch, rest.min(room as u64));
            self.file.read_at(self.cursor.file, input)?;
            let step = self.cursor.encoder.encode(input, &mut buf[filled..]);
            if step.written == 0 {
                // The file ended before its measured length did.
                return Err(Refusal::CHANGED);
            }
            self.cursor.file += step.read as u64;
            filled += step.written;
        }
        self.cursor.encoded += filled as u64;
        Ok(())
    }
}

/// The front of a buffer, no longer than `bytes_max`.
fn part(buf: &mut [u8], bytes_max: u64) -> &mut [u8] {
    let length = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(buf.len());
    &mut buf[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Contents;

    #[test]
    fn any_part_reads_as_it_stands_in_the_whole() {
        // Several chunks, and line ends on both sides of each border.
        let text: Vec<u8> = (0..200_000_usize).map(|at| b"\n\rtext.\n"[at * 7 % 8]).collect();
        let mut wire = Vec::new();
        for &byte in &text {
            match byte {
                b'\n' => wire.extend_from_slice(b"\r\n"),
                b'\r' => wire.extend_from_slice(b"\r\0"),
                other => wire.push(other),
            }
        }
        let mut source = NetasciiSource::scan(Source::Memory(Contents::of(text))).unwrap();
        assert_eq!(source.length(), wire.len() as u64);
        let mut sequential = vec![0; wire.len()];
        for (block, part) in sequential.chunks_mut(511).enumerate() {
            source.read_at(block as u64 * 511, part).unwrap();
        }
        assert_eq!(sequential, wire);
        for offset in (0..wire.len()).step_by(9973).chain([wire.len() - 1, 1, 65_536, 0]) {
            let end = wire.len().min(offset + 1428);
            let mut part = vec![0; end - offset];
            source.read_at(offset as u64, &mut part).unwrap();
            assert_eq!(part, wire[offset..end], "at {offset}");
        }
        assert_eq!(source.read_at(wire.len() as u64, &mut [0]), Err(Refusal::CHANGED));
    }
}
