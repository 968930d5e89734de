//! `flotilla-bench instructions`, hidden: does each hot path once for `bench/instructions.sh`, which counts its instructions.

use crate::error::Result;
use crate::hot::ALL;
use crate::report;

/// Calls before the one that is counted: tables are filled, pools have their blocks.
const WARM_UPS: usize = 3;

/// Runs every path, and prints their names and the units of work in a call.
pub(crate) fn run() -> Result<()> {
    for path in ALL {
        let mut work = (path.prepare)();
        for _ in 0..WARM_UPS {
            work();
        }
        measured_hot_path(&mut *work);
        report::print(&format!("{} {}\n", path.name, path.units))?;
    }
    Ok(())
}

/// The script names this function to callgrind: what runs inside is counted.
#[inline(never)]
fn measured_hot_path(work: &mut dyn FnMut()) {
    work();
    // Not a tail call: the function must be left after the work.
    std::hint::black_box(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hot_path_runs_again_and_again() {
        for path in ALL {
            let mut work = (path.prepare)();
            for _ in 0..WARM_UPS + 2 {
                measured_hot_path(&mut *work);
            }
        }
    }
}
