//! The loop that feeds a script to the machine.

use super::request::{MAX_BYTES, Mistake};
use super::{Answer, Qtest, Reply};
use std::io::{self, BufRead, ErrorKind, Read, Write};

/// Maximum line length: the digits of the largest write, plus the other words.
const LONGEST: usize = 2 * MAX_BYTES + 256;

/// Maximum number of bytes of an overlong line that are skipped before the server gives up.
const ENDLESS: usize = 64 << 20;

/// Answers each line from `input` on `output` until `input` ends.
///
/// # Errors
/// Reading or writing failed, or an overlong line did not end. A line that is too long or isn't
/// UTF-8 is not an error; the server answers it with `FAIL`.
pub fn serve(
    machine: &mut Qtest,
    mut input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut input).take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > LONGEST && line.last() != Some(&b'\n') {
            skip_line(&mut input)?;
            line.clear();
            line.push(0xff);
        }
        let answer = match str::from_utf8(&line) {
            Ok(text) => machine.answer(text),
            Err(_) => Answer::from(Reply::Fail(Mistake::Unreadable)),
        };
        output.write_all(answer.to_string().as_bytes())?;
        output.flush()?;
    }
}

/// Skips the remainder of a line that is too long.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    let mut skipped = 0;
    while skipped <= ENDLESS {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        input.consume(taken);
        skipped += taken;
        if end.is_some() {
            return Ok(());
        }
    }
    let message = format!("a line has more than {} MiB", ENDLESS >> 20);
    Err(io::Error::new(ErrorKind::InvalidData, message))
}
