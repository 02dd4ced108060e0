//! Making and checking file contents. For the list of loops only.

use std::hint::black_box;
use std::io;

use tftpbench_load::contents::{Contents, Generated};

use crate::{Work, stuck};

/// A block of a file is made, as for a DATA that is sent.
pub(crate) fn fill(blksize: usize) -> io::Result<Work> {
    let (contents, mut block, mut offset) = (generated(), vec![0; blksize], 0);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            contents.fill(offset, black_box(&mut block));
            offset += block.len() as u64;
        }
        Ok(())
    }))
}

/// A block that arrived is compared with what it must be, and is.
pub(crate) fn first_difference(blksize: usize) -> io::Result<Work> {
    compare(generated(), blksize)
}

/// The same against a file that the user gave.
pub(crate) fn first_difference_given(blksize: usize) -> io::Result<Work> {
    let mut file = vec![0; blksize];
    generated().fill(0, &mut file);
    compare(Contents::Given(file.into()), blksize)
}

fn generated() -> Contents {
    Contents::Generated(Generated::new(1, 1))
}

fn compare(contents: Contents, blksize: usize) -> io::Result<Work> {
    let mut block = vec![0; blksize];
    contents.fill(0, &mut block);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            if contents.first_difference(black_box(0), black_box(&block)).is_some() {
                return Err(stuck("the comparison"));
            }
        }
        Ok(())
    }))
}
