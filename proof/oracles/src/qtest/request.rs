//! Parses script lines.

use std::str::SplitAsciiWhitespace;

/// Maximum number of bytes transferred by one access.
pub const MAX_BYTES: usize = 16 << 20;

/// One line of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `readb`, `readw`, `readl`, `readq`.
    Load { address: u64, bytes: usize },
    /// `writeb`, `writew`, `writel` and `writeq`, which write the low `bytes` of the value.
    Store { address: u64, bytes: usize, value: u64 },
    /// `read`.
    Read { place: MemoryRange },
    /// `write`.
    Write { place: MemoryRange, data: Vec<u8> },
    /// `memset`.
    Fill { place: MemoryRange, byte: u8 },
    /// `endianness`.
    Endianness,
    /// `irq_intercept_in`, `irq_intercept_out`.
    Intercept { object: String, what: Interception },
    /// `set_irq_in`.
    SetLine { object: String, pin: Pin, level: u64 },
}

/// An input of an object, identified by name and number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) number: u64,
}

/// A range of memory. The range may be empty, and must not exceed the 64-bit address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// Address of the first byte.
    pub address: u64,
    /// Number of bytes, up to [`MAX_BYTES`].
    pub bytes: usize,
}

/// An object's intercepted lines: either the lines with this name, or the unnamed lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Interception {
    Inputs(Option<String>),
    Outputs(Option<String>),
}

/// An error in a script line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// The command does not exist.
    #[error("Unknown command '{0}'")]
    UnknownCommand(String),
    /// The object does not exist.
    #[error("Unknown device")]
    UnknownDevice,
    /// The object has no such input.
    #[error("Unknown line")]
    UnknownLine,
    /// The object has no lines of this kind to intercept.
    #[error("No intercepts installed")]
    NoLines,
    /// Inputs cannot be intercepted by name.
    #[error("Interception of named in-GPIOs not yet supported")]
    NamedInputs,
    /// Another object is already intercepted.
    #[error("IRQ intercept already enabled")]
    OtherIntercepted,
    /// An argument is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An argument is not a number, or is too large.
    #[error("{0} is not a number of 64 bits")]
    Number(&'static str),
    /// The size is zero or exceeds the limit for an access, or the range exceeds the address space.
    #[error("the size is not between 1 and {MAX_BYTES} bytes of the address space")]
    Size,
    /// The data cannot be decoded.
    #[error("the data is malformed")]
    Data,
    /// The data doesn't contain a complete byte.
    #[error("invalid argument size")]
    ArgumentSize,
    /// The line isn't UTF-8.
    #[error("the line is not UTF-8")]
    Unreadable,
}

impl Request {
    pub(super) fn parse(line: &str) -> Result<Self, Mistake> {
        let mut words = Words(line.split_ascii_whitespace());
        let command = words.0.next().unwrap_or_default();
        Ok(match command {
            "readb" | "readw" | "readl" | "readq" => {
                Self::Load { address: words.address()?, bytes: width(command) }
            }
            "writeb" | "writew" | "writel" | "writeq" => {
                let address = words.address()?;
                Self::Store { address, bytes: width(command), value: words.number("the value")? }
            }
            "read" => Self::Read { place: words.some_place()? },
            "write" => {
                let place = words.place()?;
                Self::Write { place, data: hexadecimal(words.data()?, place.bytes)? }
            }
            "memset" => {
                let place = words.place()?;
                let [byte, ..] = words.number("the value")?.to_le_bytes();
                Self::Fill { place, byte }
            }
            "endianness" => Self::Endianness,
            "irq_intercept_in" => words.interception(Interception::Inputs)?,
            "irq_intercept_out" => words.interception(Interception::Outputs)?,
            "set_irq_in" => words.set_line()?,
            _ => return Err(Mistake::UnknownCommand(command.to_owned())),
        })
    }
}

/// The words of a line that follow the command's name.
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self, what: &'static str) -> Result<&'a str, Mistake> {
        self.0.next().ok_or(Mistake::Missing(what))
    }

    fn number(&mut self, what: &'static str) -> Result<u64, Mistake> {
        number(self.word(what)?).ok_or(Mistake::Number(what))
    }

    fn address(&mut self) -> Result<u64, Mistake> {
        self.number("the address")
    }

    /// Parses a memory range, which may be empty.
    fn place(&mut self) -> Result<MemoryRange, Mistake> {
        let address = self.address()?;
        let bytes = usize::try_from(self.number("the size")?).map_err(|_| Mistake::Size)?;
        if bytes > MAX_BYTES || address.checked_add((bytes as u64).saturating_sub(1)).is_none() {
            return Err(Mistake::Size);
        }
        Ok(MemoryRange { address, bytes })
    }

    fn some_place(&mut self) -> Result<MemoryRange, Mistake> {
        self.place().and_then(|place| if place.bytes == 0 { Err(Mistake::Size) } else { Ok(place) })
    }

    /// Parses data.
    fn data(&mut self) -> Result<&'a str, Mistake> {
        let word = self.word("the data")?;
        if word.len() < 3 { Err(Mistake::ArgumentSize) } else { Ok(word) }
    }

    fn interception(&mut self, of: fn(Option<String>) -> Interception) -> Result<Request, Mistake> {
        let object = self.word("the device")?.to_owned();
        Ok(Request::Intercept { object, what: of(self.0.next().map(str::to_owned)) })
    }

    fn set_line(&mut self) -> Result<Request, Mistake> {
        let object = self.word("the device")?.to_owned();
        let name = self.word("the line's name")?.to_owned();
        let number = self.number("the line's number")?;
        Ok(Request::SetLine { object, pin: Pin { name, number }, level: self.number("the level")? })
    }
}

/// Returns the number of bytes that a command transfers, which the last letter of its name encodes.
fn width(command: &str) -> usize {
    match command.as_bytes().last() {
        Some(b'b') => 1,
        Some(b'w') => 2,
        Some(b'l') => 4,
        _ => 8,
    }
}

/// Parses a number like C does: decimal, octal or hexadecimal, with an optional sign.
fn number(word: &str) -> Option<u64> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// Decodes the digits after `0x` into `bytes` bytes. Missing digits are zero.
fn hexadecimal(word: &str, bytes: usize) -> Result<Vec<u8>, Mistake> {
    let digits = word.strip_prefix("0x").ok_or(Mistake::Data)?.as_bytes();
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let data: Option<Vec<u8>> = digits.chunks(2).take(bytes).map(pair).collect();
    let mut data = data.ok_or(Mistake::Data)?;
    data.resize(bytes, 0);
    Ok(data)
}
