//! IRQ numbers, and names of handlers and devices, for diagnostics and statistics.

use alloc::collections::TryReserveError;
use alloc::string::String;
use core::fmt;
use core::ops::Deref;
use doorbell_fallible::Shared;

/// The name of a handler or a device. Clones share its memory.
#[derive(Clone)]
pub struct Name(Shared<String>);

impl Name {
    pub(crate) fn try_new(name: &str) -> Result<Self, TryReserveError> {
        let mut owned = String::new();
        owned.try_reserve_exact(name.len())?;
        owned.push_str(name);
        Shared::try_new(owned).map(Self)
    }

    /// Creates a name from the text that the closure `write` writes to its argument.
    pub(crate) fn try_written(
        write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result,
    ) -> Result<Self, TryReserveError> {
        let mut writer = Fallible { text: String::new(), refused: None };
        // Ignore this result: if memory is exhausted, the error is in `refused`.
        let _ = write(&mut writer);
        writer.refused.map_or_else(|| Shared::try_new(writer.text).map(Self), Err)
    }
}

/// A string that reports exhausted memory when it grows.
struct Fallible {
    text: String,
    refused: Option<TryReserveError>,
}

impl fmt::Write for Fallible {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Err(refused) = self.text.try_reserve(text.len()) {
            self.refused = Some(refused);
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// An IRQ number. The core assigns one to each interrupt. IRQ numbers are dense, start at 0, are
/// reused after they are freed, and are unrelated to INTIDs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Irq(u32);

impl Irq {
    /// Creates an IRQ from its number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Irq({})", self.0)
    }
}

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
