//! Reads the functions of a state. An empty function takes a few bytes, but many more in memory, so
//! their number is limited while they are read.

use super::FunctionState;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

/// Maximum number of functions: those of a PCI segment.
const MAX: usize = 1 << 16;

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<(String, FunctionState)>, D::Error> {
    from.deserialize_seq(Functions)
}

struct Functions;

impl<'de> Visitor<'de> for Functions {
    type Value = Vec<(String, FunctionState)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} functions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut functions = Vec::new();
        while let Some(function) = from.next_element()? {
            if functions.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            functions.push(function);
        }
        Ok(functions)
    }
}
