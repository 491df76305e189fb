//! The loop that feeds a script to the machine.

use super::request::Mistake;
use super::{Answer, Qtest, Reply};
use std::io::{self, BufRead, Write};

/// Answers each line from `input` on `output` until `input` ends.
///
/// # Errors
/// Reading or writing failed. A line that isn't UTF-8 is not an error; the server answers it with
/// `FAIL`.
pub fn serve(machine: &mut Qtest, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    for line in input.split(b'\n') {
        let answer = match str::from_utf8(&line?) {
            Ok(text) => machine.answer(text),
            Err(_) => Answer::from(Reply::Fail(Mistake::Unreadable)),
        };
        output.write_all(answer.to_string().as_bytes())?;
        output.flush()?;
    }
    Ok(())
}
