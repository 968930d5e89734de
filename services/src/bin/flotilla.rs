//! The `flotilla` program. Everything is in the library, where it is tested.

use std::process::ExitCode;

/// Every frame of the log is a page-aligned block that lives until a snapshot. The C library's allocator asks the kernel
/// for each of them from a thread that isn't the first, and spends two pages on one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    flotilla_services::cli::main()
}
