//! Names for people.

use crate::shared::Shared;
use alloc::collections::TryReserveError;
use alloc::string::String;
use core::fmt;
use core::ops::Deref;

/// The name of a handler or of a device. A clone shares its memory.
#[derive(Clone)]
pub struct Name(Shared<String>);

impl Name {
    pub(crate) fn try_new(name: &str) -> Result<Self, TryReserveError> {
        let mut owned = String::new();
        owned.try_reserve_exact(name.len())?;
        owned.push_str(name);
        Shared::try_new(owned).map(Self)
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
