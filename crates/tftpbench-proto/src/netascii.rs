//! netascii: how text crosses the wire (RFC 764 as RFC 1350 uses it). LF travels as CR LF, CR as CR NUL.
//!
//! Must never allocate; a pair may be cut anywhere between two calls, so state is carried. For servers and
//! clients.

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const NUL: u8 = 0;

/// How far one call came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the input.
    pub read: usize,
    /// Bytes put into the output.
    pub written: usize,
}

/// Bytes that these bytes of a file take on the wire. Sums over the pieces of a file.
pub fn encoded_len(bytes: &[u8]) -> u64 {
    let pairs = bytes.iter().filter(|&&byte| byte == CR || byte == LF).count();
    bytes.len() as u64 + pairs as u64
}

/// File to wire. A copy of it, kept with its place in the file, is a point from which a block can be encoded
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    /// The second byte of a pair whose CR is out.
    pending: Option<u8>,
}

impl Encoder {
    /// Goes on until the input is used up or the output full. At the end of the file, call with no input
    /// until [`is_clean`](Encoder::is_clean).
    pub fn encode(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut at = Progress::default();
        while at.written < output.len() {
            let byte = match self.pending.take() {
                Some(second) => second,
                None => {
                    let Some(&byte) = input.get(at.read) else { break };
                    at.read += 1;
                    self.pending = match byte {
                        LF => Some(LF),
                        CR => Some(NUL),
                        _ => None,
                    };
                    if self.pending.is_some() { CR } else { byte }
                }
            };
            output[at.written] = byte;
            at.written += 1;
        }
        at
    }

    /// Whether no half of a pair waits.
    pub fn is_clean(&self) -> bool {
        self.pending.is_none()
    }
}

/// Wire to file. A CR before anything but LF or NUL, which no encoder sends, stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    after_cr: bool,
}

impl Decoder {
    /// Goes on until the input is used up or the output full. An output one byte longer than the input always
    /// suffices.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut at = Progress::default();
        while let Some(&byte) = input.get(at.read) {
            if byte == CR && !self.after_cr {
                self.after_cr = true;
                at.read += 1;
                continue;
            }
            let Some(place) = output.get_mut(at.written) else { break };
            let was_after_cr = std::mem::take(&mut self.after_cr);
            *place = if was_after_cr && byte != LF { CR } else { byte };
            at.written += 1;
            // A stray CR stands for itself only; the byte behind it is still to come.
            if !was_after_cr || byte == LF || byte == NUL {
                at.read += 1;
            }
        }
        at
    }

    /// At the end of the file: the CR that waited in vain for its second byte.
    pub fn finish(&mut self) -> Option<u8> {
        std::mem::take(&mut self.after_cr).then_some(CR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of these sizes, as blocks and reads cut it.
    fn encode(bytes: &[u8], read_len: usize, block_len: usize) -> Vec<u8> {
        let (mut encoder, mut wire) = (Encoder::default(), vec![]);
        let mut block = vec![0; block_len];
        for mut input in bytes.chunks(read_len).chain([[].as_slice()]) {
            loop {
                let at = encoder.encode(input, &mut block);
                wire.extend(&block[..at.written]);
                input = &input[at.read..];
                if input.is_empty() && encoder.is_clean() {
                    break;
                }
            }
        }
        wire
    }

    fn decode(wire: &[u8], block_len: usize) -> Vec<u8> {
        let (mut decoder, mut file) = (Decoder::default(), vec![]);
        let mut output = vec![0; block_len + 1];
        for block in wire.chunks(block_len) {
            let at = decoder.decode(block, &mut output);
            assert_eq!(at.read, block.len());
            file.extend(&output[..at.written]);
        }
        file.extend(decoder.finish());
        file
    }

    #[test]
    fn line_ends_become_cr_lf_and_cr_becomes_cr_nul() {
        assert_eq!(encode(b"a\nb\rc\r\n", 64, 64), b"a\r\nb\r\0c\r\0\r\n");
    }

    #[test]
    fn every_cut_gives_the_same_wire_and_file() {
        let text = b"\r\r\n\n\0a\r\0\n\rb\n\r";
        let wire = encode(text, 64, 64);
        assert_eq!(encoded_len(text), wire.len() as u64);
        for block_len in 1..10 {
            for read_len in 1..10 {
                assert_eq!(encode(text, read_len, block_len), wire);
            }
            assert_eq!(decode(&wire, block_len), text);
        }
    }

    #[test]
    fn a_pair_across_a_block_border_is_one_byte_of_the_file() {
        let mut decoder = Decoder::default();
        let mut output = [0; 8];
        assert_eq!(decoder.decode(b"ab\r", &mut output), Progress { read: 3, written: 2 });
        assert_eq!(decoder.decode(b"\nc", &mut output), Progress { read: 2, written: 2 });
        assert_eq!(output[..2], *b"\nc");
    }

    #[test]
    fn a_cr_that_is_no_pairs_stays() {
        assert_eq!(decode(b"a\rb\r\r\nc\r", 64), b"a\rb\r\nc\r");
    }

    #[test]
    fn a_full_output_stops_the_decoder_without_loss() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"\rx", &mut [0; 1]), Progress { read: 1, written: 1 });
        assert_eq!(decoder.decode(b"x", &mut [0; 0]), Progress { read: 0, written: 0 });
    }
}
