//! Times every hot loop: `cargo bench -p tftpbench-benches`, with a part of a name for some of them only.
//!
//! Never judges: times are for a quiet machine and a person; what is checked are instructions (`make bench`).

use std::io;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tftpbench_benches::LOOPS;

fn main() -> io::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    for each in &LOOPS {
        let mut work = (each.prepare)()?;
        criterion.bench_function(each.name, |bencher| {
            bencher.iter_custom(|units| {
                let start = Instant::now();
                work(units).unwrap_or_else(|error| panic!("{}: {error}", each.name));
                start.elapsed()
            });
        });
    }
    criterion.final_summary();
    Ok(())
}
