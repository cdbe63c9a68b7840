//! The program `ftpulse`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ftpulse::cli::main()
}
