//! The program `ftpulse`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = ftpulse::failpoint::set_up();
    ftpulse::cli::main()
}
