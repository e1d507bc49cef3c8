//! Starts the command line.

fn main() -> std::process::ExitCode {
    mana_core_auth::cli::main()
}
