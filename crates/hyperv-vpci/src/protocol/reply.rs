//! Completions. A completion doesn't include its own type; the guest knows it from the request.
//!
//! Each parser returns the payload if the request succeeded, and the host's status otherwise. If a
//! request failed, the completion may consist of just the status.

use super::{
    AssignedResources, BARS, Codec, ProtocolError, Reader, ResourcesForm, Slot,
    TranslatedInterrupt, Writer,
};
use core::fmt;

/// A request's result, an NTSTATUS. Negative numbers are failures.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u32);

impl Status {
    /// The request succeeded.
    pub const SUCCESS: Self = Self(0);
    /// The host does not support the proposed version.
    pub const REVISION_MISMATCH: Self = Self(0xc000_0059);
    /// The host does not support the request.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
    /// The request is malformed, or not possible in the current state.
    pub const BAD_DATA: Self = Self(0xc000_090b);

    /// Creates the status with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Parses a completion that has only a status.
    ///
    /// # Errors
    /// Returns [`ProtocolError::Truncated`] if the completion is too short.
    pub fn parse(completion: &[u8]) -> Result<Self, ProtocolError> {
        Reader::new(completion).u32(0).map(Self)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns `true` unless the number is negative as an NTSTATUS.
    pub const fn is_success(self) -> bool {
        self.0.cast_signed() >= 0
    }

    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Returns [`ProtocolError::NoRoom`] if `out` is too short.
    pub fn emit(self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.0)?;
        Ok(to.length())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Defines how an answer follows a successful status. `$blank` is an answer whose fields a
/// completion will replace.
macro_rules! answer {
    ($reply:ident, $blank:expr, $through:expr) => {
        impl $reply {
            /// Parses the completion.
            ///
            /// # Errors
            /// Returns [`ProtocolError`] if the completion is too short, or has an invalid field.
            pub fn parse(completion: &[u8]) -> Result<Result<Self, Status>, ProtocolError> {
                let mut from = Reader::new(completion);
                match Status(from.u32(0)?) {
                    status if status.is_success() => $blank.through(&mut from).map(Ok),
                    status => Ok(Err(status)),
                }
            }

            /// Writes the completion to `out` and returns its length in bytes.
            ///
            /// # Errors
            /// Returns [`ProtocolError::NoRoom`] if `out` is too short.
            pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
                let mut to = Writer::new(out);
                to.u32(Status::SUCCESS.0)?;
                self.through(&mut to)?;
                Ok(to.length())
            }

            fn through<C: Codec>(self, by: &mut C) -> Result<Self, ProtocolError> {
                let through: fn(Self, &mut C) -> _ = $through;
                through(self, by)
            }
        }
    };
}

/// Answer to [`Request::QueryVersion`](super::Request::QueryVersion). Guests only look at the
/// status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionReply {
    /// Result of the request.
    pub status: Status,
    /// Highest version that the host accepts, in wire format.
    pub version: u32,
}

impl VersionReply {
    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Returns [`ProtocolError::NoRoom`] if `out` is too short.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.status.0)?;
        to.u32(self.version)?;
        Ok(to.length())
    }
}

/// Answer to [`Request::QueryResources`](super::Request::QueryResources): the values that the base
/// address registers return after all ones were written to them. A 64-bit register occupies two
/// entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarsReply(pub [u32; BARS]);

answer!(BarsReply, Self([0; BARS]), |Self(mut bars), by| {
    bars.iter_mut().try_for_each(|bar| by.u32(*bar).map(|passed| *bar = passed))?;
    Ok(Self(bars))
});

/// Answer to [`Request::CreateInterrupt`](super::Request::CreateInterrupt).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptReply(pub TranslatedInterrupt);

answer!(InterruptReply, Self(TranslatedInterrupt::BLANK), |Self(interrupt), by| {
    by.reserved(4)?;
    Ok(Self(interrupt.through(by)?))
});

/// Answer to [`Request::AssignResources`](super::Request::AssignResources), laid out like the
/// request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedReply(pub Slot);

answer!(AssignedReply, Self(Slot::default()), |Self(slot), by| {
    let assigned = AssignedResources::new(slot, ResourcesForm::V2).through(by)?;
    Ok(Self(assigned.slot))
});
