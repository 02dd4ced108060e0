//! Whatever arrives as a frame: any bytes, or a frame of ours with some bytes changed. `cargo test -p tftpbench-net` runs
//! the body on seeded random input.
#![cfg_attr(not(test), no_main)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

#[cfg(test)]
use crate::frame::{Frame, Headers, parse as parse_frame};
#[cfg(not(test))]
use tftpbench_net::{Frame, Headers, parse_frame};

#[cfg(not(test))]
libfuzzer_sys::fuzz_target!(|input: &[u8]| frame(input));

/// A frame is a datagram, a message that one did not arrive, or nothing; what we write, we read.
pub(crate) fn frame(input: &[u8]) {
    let Some((&[flags, changes], rest)) = input.split_first_chunk() else { return };
    let (is_checked, is_ours, is_ipv6) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
    if !is_ours {
        return arrives(rest, is_checked);
    }
    let (changes, payload) = rest.split_at(rest.len().min(2 * usize::from(changes % 8)));
    let mut ours = written(is_ipv6, payload);
    for change in changes.as_chunks::<2>().0 {
        let at = usize::from(change[0]) % ours.len();
        ours[at] ^= change[1];
    }
    arrives(&ours, is_checked);
    ours.truncate(usize::from(flags));
    arrives(&ours, is_checked);
}

fn arrives(bytes: &[u8], is_checked: bool) {
    let Some(Frame::Datagram { from, to, payload, truncated }) = parse_frame(bytes, is_checked) else {
        return;
    };
    let inside = bytes.as_ptr_range();
    assert!(payload.is_empty() || (inside.contains(&payload.as_ptr()) && payload.len() < bytes.len()));
    assert_eq!(from.is_ipv4(), to.is_ipv4());
    let again = write(from, to, payload);
    assert_eq!(parse_frame(&again, false), Some(Frame::Datagram { from, to, payload, truncated: false }));
    assert!(!truncated || payload.len() + 42 <= bytes.len());
}

fn written(is_ipv6: bool, payload: &[u8]) -> Vec<u8> {
    let ip: IpAddr = if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { [10, 1, 2, 3].into() };
    let (from, to) = (SocketAddr::new(ip, 20_001), SocketAddr::new(ip, 69));
    let frame = write(from, to, payload);
    assert_eq!(parse_frame(&frame, false), Some(Frame::Datagram { from, to, payload, truncated: false }));
    frame
}

fn write(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let headers = Headers::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], from.ip());
    let mut frame = vec![0xee; headers.length() + payload.len()];
    frame[headers.length()..].copy_from_slice(payload);
    assert_eq!(headers.write(&mut frame, from, to, payload.len()), frame.len());
    frame
}
