//! Typed registers, each with an offset in a frame, a value type and access rights.

use core::fmt;
use core::marker::PhantomData;

/// Integer with the width of a register: `u8`, `u16`, `u32` or `u64`.
pub trait RawRegister: Copy + Eq + fmt::LowerHex + Into<u64> + private::Sealed {
    /// Width in bytes.
    const BYTES: u32;
}

mod private {
    /// Prevents implementations for widths that the architecture does not use.
    pub trait Sealed {}
}

macro_rules! raw_register {
    ($($raw:ty: $bytes:literal),*) => { $(
        impl private::Sealed for $raw {}
        impl RawRegister for $raw {
            const BYTES: u32 = $bytes;
        }
        impl RegisterValue for $raw {
            type Raw = Self;
        }
    )* };
}
raw_register!(u8: 1, u16: 2, u32: 4, u64: 8);

/// The value of a register. Every bit pattern must be a valid value and must be preserved by
/// conversions.
pub trait RegisterValue: Copy + From<Self::Raw> + Into<Self::Raw> {
    /// Integer as wide as the register.
    type Raw: RawRegister;
}

/// Declares the raw types of register values.
macro_rules! register_values {
    ($raw:ty: $($value:ty),* $(,)?) => { $(
        impl $crate::RegisterValue for $value {
            type Raw = $raw;
        }
    )* };
}
pub(crate) use register_values;

/// Software's access rights to a register, as a type.
pub trait Access: Copy + 'static {
    /// The access rights as a value.
    const KIND: AccessKind;
}
/// Access types whose registers can be read.
pub trait Readable: Access {}
/// Access types whose registers can be written.
pub trait Writable: Access {}

/// Access type of registers that can be read and written.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}
/// Access type of registers that can only be read; writes are ignored.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}
/// Access type of registers that can only be written; reads return zero or an unknown value.
#[derive(Clone, Copy, Debug)]
pub enum WriteOnly {}

impl Access for ReadWrite {
    const KIND: AccessKind = AccessKind::ReadWrite;
}
impl Access for ReadOnly {
    const KIND: AccessKind = AccessKind::ReadOnly;
}
impl Access for WriteOnly {
    const KIND: AccessKind = AccessKind::WriteOnly;
}
impl Readable for ReadWrite {}
impl Readable for ReadOnly {}
impl Writable for ReadWrite {}
impl Writable for WriteOnly {}

/// Software's access rights to a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessKind {
    /// The register can be read and written.
    ReadWrite,
    /// The register can only be read.
    ReadOnly,
    /// The register can only be written.
    WriteOnly,
}

/// A register in a frame.
pub struct Reg<V, A = ReadWrite> {
    offset: u32,
    kind: PhantomData<fn() -> (V, A)>,
}

impl<V, A> Clone for Reg<V, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V, A> Copy for Reg<V, A> {}
impl<V, A> PartialEq for Reg<V, A> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}
impl<V, A> Eq for Reg<V, A> {}

impl<V, A> fmt::Debug for Reg<V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reg({:#06x})", self.offset)
    }
}

impl<V, A> Reg<V, A> {
    /// Creates the register at `offset` bytes from its frame's base.
    pub const fn at(offset: u32) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// Returns the offset from the frame's base in bytes.
    pub const fn offset(self) -> u32 {
        self.offset
    }
}

impl<V: RegisterValue, A: Access> Reg<V, A> {
    /// Width of the register in bytes.
    pub const BYTES: u32 = V::Raw::BYTES;

    /// Returns the entry for this register in a frame's register table.
    pub const fn info(self, name: &'static str) -> RegisterInfo {
        RegisterInfo { name, offset: self.offset, bytes: Self::BYTES, count: 1, access: A::KIND }
    }
}

/// Consecutive registers of the same type. [`get`](Self::get) and [`iter`](Self::iter) return the
/// individual registers with their offsets.
pub struct RegArray<V, A = ReadWrite> {
    offset: u32,
    count: u32,
    kind: PhantomData<fn() -> (V, A)>,
}

impl<V, A> Clone for RegArray<V, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V, A> Copy for RegArray<V, A> {}

impl<V, A> fmt::Debug for RegArray<V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegArray({:#06x}, {})", self.offset, self.count)
    }
}

impl<V: RegisterValue, A: Access> RegArray<V, A> {
    /// Creates an array of `count` registers without gaps, starting at `offset`.
    pub const fn at(offset: u32, count: u32) -> Self {
        Self { offset, count, kind: PhantomData }
    }

    /// Returns the register at `index`, or `None` if `index` exceeds the array.
    pub const fn get(self, index: u32) -> Option<Reg<V, A>> {
        if index < self.count { Some(Reg::at(self.offset + index * V::Raw::BYTES)) } else { None }
    }

    /// Returns the number of registers.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Returns all registers in the array.
    pub fn iter(self) -> impl Iterator<Item = Reg<V, A>> {
        (0..self.count).filter_map(move |index| self.get(index))
    }

    /// Returns the entry for this array in a frame's register table.
    pub const fn info(self, name: &'static str) -> RegisterInfo {
        RegisterInfo {
            name,
            offset: self.offset,
            bytes: V::Raw::BYTES,
            count: self.count,
            access: A::KIND,
        }
    }
}

/// An entry in a frame's register table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterInfo {
    /// Name in the manual, without the frame's prefix.
    pub name: &'static str,
    /// Offset from the frame's base in bytes.
    pub offset: u32,
    /// Width of one register in bytes.
    pub bytes: u32,
    /// Number of consecutive registers.
    pub count: u32,
    /// Software's access rights.
    pub access: AccessKind,
}

impl RegisterInfo {
    /// Returns the offset of the first byte after the register or array.
    pub const fn end(&self) -> u32 {
        self.offset + self.bytes * self.count
    }

    /// Returns the index of the register that contains the byte at `offset`, or `None` if none
    /// does.
    pub const fn index_of(&self, offset: u32) -> Option<u32> {
        if offset >= self.offset && offset < self.end() {
            Some((offset - self.offset) / self.bytes)
        } else {
            None
        }
    }
}

/// Declares a frame's register constants and its register table.
macro_rules! register_frame {
    (
        $(#[$table_doc:meta])* $table:ident;
        $($(#[$doc:meta])* $name:ident: $kind:ty = $value:expr;)*
    ) => {
        $( $(#[$doc])* pub const $name: $kind = $value; )*
        $(#[$table_doc])*
        pub const $table: &[$crate::RegisterInfo] = &[$( $name.info(stringify!($name)) ),*];
    };
}
pub(crate) use register_frame;
