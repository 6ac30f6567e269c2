//! The `prismesh` command. Everything it does is in the library, where tests and simulations reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    prismesh::cli::main(std::env::args_os())
}
