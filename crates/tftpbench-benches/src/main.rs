//! `one-loop NAME UNITS` runs one hot loop, for valgrind to count; without arguments it lists them, one a line.
//!
//! Never measures anything itself. Called by `tests/instructions`.

use std::env;
use std::io::{self, Write as _};

use tftpbench_benches::LOOPS;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, units] = arguments.as_slice() else {
        return LOOPS.iter().try_for_each(|each| writeln!(io::stdout(), "{}", each.name));
    };
    let chosen = LOOPS.iter().find(|each| each.name == name);
    let chosen = chosen.ok_or_else(|| io::Error::other(format!("no loop is called {name}")))?;
    (chosen.prepare)()?(units.parse().map_err(io::Error::other)?)
}
