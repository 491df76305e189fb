//! Typed registers: an offset in a frame, a value type, and what may be done with it.

use core::fmt;
use core::marker::PhantomData;

/// The raw width of a register: `u8`, `u16`, `u32` or `u64`.
pub trait RawRegister: Copy + Eq + fmt::LowerHex + Into<u64> + private::Sealed {
    /// Width in bytes.
    const BYTES: u32;
}

mod private {
    /// Keeps the widths to those of the architecture.
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

/// The value of a register: any bit pattern is a value, and comes back unchanged.
pub trait RegisterValue: Copy + From<Self::Raw> + Into<Self::Raw> {
    /// The integer of the register's width.
    type Raw: RawRegister;
}

/// Declares the raw width of register value types.
macro_rules! register_values {
    ($raw:ty: $($value:ty),* $(,)?) => { $(
        impl $crate::RegisterValue for $value {
            type Raw = $raw;
        }
    )* };
}
pub(crate) use register_values;

/// Software's access to a register, as a type.
pub trait Access: Copy + 'static {
    /// The same as a value.
    const KIND: AccessKind;
}
/// Access types whose registers can be read.
pub trait Readable: Access {}
/// Access types whose registers can be written.
pub trait Writable: Access {}

/// Reads and writes.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}
/// Reads only; writes are ignored.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}
/// Writes only; reads return zero or an unknown value.
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

/// Software's access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessKind {
    /// Reads and writes.
    ReadWrite,
    /// Reads only.
    ReadOnly,
    /// Writes only.
    WriteOnly,
}

/// One register of a frame.
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
    /// The register at `offset` bytes from its frame's base.
    pub const fn at(offset: u32) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// Bytes from the frame's base.
    pub const fn offset(self) -> u32 {
        self.offset
    }
}

impl<V: RegisterValue, A: Access> Reg<V, A> {
    /// Width in bytes.
    pub const BYTES: u32 = V::Raw::BYTES;

    /// This register's row of a frame's table.
    pub const fn info(self, name: &'static str) -> RegisterInfo {
        RegisterInfo { name, offset: self.offset, bytes: Self::BYTES, count: 1, access: A::KIND }
    }
}

/// Consecutive registers of one kind.
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
    /// `count` registers from `offset` on, without gaps.
    pub const fn at(offset: u32, count: u32) -> Self {
        Self { offset, count, kind: PhantomData }
    }

    /// The register at `index`; `None` past the end.
    pub const fn get(self, index: u32) -> Option<Reg<V, A>> {
        if index < self.count { Some(Reg::at(self.offset + index * V::Raw::BYTES)) } else { None }
    }

    /// Returns the number of registers.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Reg<V, A>> {
        (0..self.count).filter_map(move |index| self.get(index))
    }

    /// This array's row of a frame's table.
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

/// A row of a frame's register table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterInfo {
    /// The manual's name, without the frame's prefix.
    pub name: &'static str,
    /// Bytes from the frame's base.
    pub offset: u32,
    /// Width of one register in bytes.
    pub bytes: u32,
    /// Number of consecutive registers.
    pub count: u32,
    /// Software's access to it.
    pub access: AccessKind,
}

impl RegisterInfo {
    /// First byte after the register or array.
    pub const fn end(&self) -> u32 {
        self.offset + self.bytes * self.count
    }

    /// Returns the index of the register that holds the byte at `offset`, or `None` if none does.
    pub const fn index_of(&self, offset: u32) -> Option<u32> {
        if offset >= self.offset && offset < self.end() {
            Some((offset - self.offset) / self.bytes)
        } else {
            None
        }
    }
}

/// Declares a frame's register constants and, from the same lines, its table.
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
