//! Printing for people and programs.

use std::io::{self, ErrorKind, Write as _};

/// Prints a line to standard output. A reader that went away (`| head`) has read what it wanted: no error.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
