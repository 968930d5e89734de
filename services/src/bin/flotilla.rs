//! The `flotilla` program: see [`flotilla_services::cli`].

fn main() -> std::process::ExitCode {
    flotilla_services::cli::main()
}
