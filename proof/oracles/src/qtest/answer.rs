//! Formats the server's answers the way QEMU does.

use super::request::Mistake;
use std::fmt;

/// The result of one script line: changes to intercepted lines, followed by the reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Changes to the intercepted lines, in order.
    pub irqs: Vec<IrqChange>,
    /// The reply.
    pub reply: Reply,
}

/// A change to an intercepted line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqChange {
    /// The line was asserted.
    Raised(usize),
    /// The line was deasserted.
    Lowered(usize),
}

impl IrqChange {
    /// Returns the change of a line from level `then` to level `now`, or `None` if the levels are
    /// equal.
    pub(super) fn of(line: usize, then: bool, now: bool) -> Option<Self> {
        match (then, now) {
            (false, true) => Some(Self::Raised(line)),
            (true, false) => Some(Self::Lowered(line)),
            _ => None,
        }
    }
}

/// The reply to a script line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Success, with no value.
    Done,
    /// A register's value.
    Number(u64),
    /// A word.
    Word(&'static str),
    /// The contents of memory.
    Bytes(Vec<u8>),
    /// Failure.
    Fail(Mistake),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { irqs: Vec::new(), reply }
    }
}

/// Formats all lines, ending each with a newline.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.irqs.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        writeln!(f, "{}", self.reply)
    }
}

impl fmt::Display for IrqChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(line) => write!(f, "IRQ raise {line}"),
            Self::Lowered(line) => write!(f, "IRQ lower {line}"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("OK"),
            Self::Number(number) => write!(f, "OK {number:#018x}"),
            Self::Word(word) => write!(f, "OK {word}"),
            Self::Bytes(bytes) => {
                f.write_str("OK 0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Fail(mistake @ Mistake::ArgumentSize) => write!(f, "ERR {mistake}"),
            Self::Fail(mistake) => write!(f, "FAIL {mistake}"),
        }
    }
}
