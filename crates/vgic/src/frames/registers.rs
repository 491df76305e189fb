//! Table-driven register frames. Dispatches frame accesses through a table of registers, and checks
//! width, alignment and direction in one place. Accesses that span several registers are split, so
//! handlers only see whole registers or fields.

use crate::monitor::AccessWidth;
use crate::monitor::events::{FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::wired::candidates::set_bits;
use gic_arch::{AccessKind, IntId, IntIdField, RegisterInfo, id};

/// One register in a frame, or an array of them. `C` is the context passed to the register's
/// handlers.
pub(crate) struct Register<C> {
    /// Offset, width, count and permitted accesses.
    pub(crate) info: RegisterInfo,
    pub(crate) handlers: Handlers<C>,
}

/// Access handlers for a register.
pub(crate) enum Handlers<C> {
    /// The register reads as zero and ignores writes.
    Zero,
    /// Whole registers, by index in the array.
    Value {
        /// Returns the register's value.
        read: fn(C, u32) -> u64,
        /// Writes the lanes that the guest has written.
        write: fn(C, u32, Lanes),
    },
    /// One bit per interrupt. Only bits written as ones take effect, as in write-1-to-set and
    /// write-1-to-clear registers.
    Bits {
        /// Layout of the bits.
        field: IntIdField,
        /// Returns the bits of 32 interrupts, starting with this one; 0 for an interrupt that does
        /// not exist.
        read: fn(C, IntId) -> u32,
        /// Writes a one to an interrupt's bit, unless the interrupt does not exist.
        write: fn(C, IntId) -> Result<(), NoSuchInterrupt>,
    },
    /// One field per interrupt. All fields that are written take effect.
    Fields {
        /// Layout of the fields.
        field: IntIdField,
        /// Returns the field's value, or 0 if the interrupt does not exist.
        read: fn(C, IntId) -> u32,
        /// Writes the field, unless the interrupt does not exist.
        write: fn(C, IntId, u32) -> Result<(), NoSuchInterrupt>,
    },
}

/// Error for a field whose interrupt does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoSuchInterrupt;

/// Part of an access that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// Offset in the frame.
    offset: u32,
    reason: FaultReason,
    /// The interrupt, if the access was refused because it does not exist.
    missing: Option<IntId>,
}

impl Refusal {
    pub(crate) const fn new(offset: u32, reason: FaultReason) -> Self {
        Self { offset, reason, missing: None }
    }

    const fn missing(offset: u32, intid: IntId) -> Self {
        Self { offset, reason: FaultReason::NoSuchInterrupt, missing: Some(intid) }
    }

    /// Converts the refusal into a guest fault for this frame. `value` is the value written.
    pub(crate) fn at(self, frame: RegisterFrame, value: FaultDetail) -> GuestFault {
        let detail = self.missing.map_or(value, FaultDetail::Interrupt);
        GuestFault::new(self.reason, (frame, self.offset), detail)
    }
}

/// The register bits that a write affects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lanes {
    value: u64,
    mask: u64,
}

impl Lanes {
    /// Returns `old` with the written bits replaced.
    pub(crate) const fn over(self, old: u64) -> u64 {
        (old & !self.mask) | (self.value & self.mask)
    }

    /// Returns the written value with zeros in the unwritten lanes, or `None` if the lowest lane
    /// was not written. Write-only registers interpret narrow writes this way.
    pub(crate) const fn zero_extended(self) -> Option<u64> {
        if self.mask & 1 == 1 { Some(self.value & self.mask) } else { None }
    }
}

/// Defines a register with its handlers, by its name in `gic_arch`.
macro_rules! register {
    ($frame:ident :: $name:ident, zero) => {
        $crate::frames::registers::Register::zero($frame::$name.info(stringify!($name)))
    };
    ($frame:ident :: $name:ident, fields $handlers:path) => {
        $crate::frames::registers::Register::new(
            $frame::$name.info(stringify!($name)),
            $handlers($frame::$name),
        )
    };
    ($frame:ident :: $name:ident, constant $read:expr) => {
        $crate::frames::registers::Register::constant($frame::$name.info(stringify!($name)), $read)
    };
    ($frame:ident :: $name:ident, trigger $write:expr) => {
        $crate::frames::registers::Register::trigger($frame::$name.info(stringify!($name)), $write)
    };
    ($frame:ident :: $name:ident, value $read:expr, $write:expr) => {
        $crate::frames::registers::Register::new(
            $frame::$name.info(stringify!($name)),
            $crate::frames::registers::Handlers::Value { read: $read, write: $write },
        )
    };
}
pub(crate) use register;

impl<C> Register<C> {
    pub(crate) const fn new(info: RegisterInfo, handlers: Handlers<C>) -> Self {
        Self { info, handlers }
    }

    /// Creates a register that reads as zero and ignores writes.
    pub(crate) const fn zero(info: RegisterInfo) -> Self {
        Self::new(info, Handlers::Zero)
    }

    /// Creates a read-only register.
    pub(crate) const fn constant(info: RegisterInfo, read: fn(C, u32) -> u64) -> Self {
        Self::new(info, Handlers::Value { read, write: |_, _, _| {} })
    }

    /// Creates a write-only register.
    pub(crate) const fn trigger(info: RegisterInfo, write: fn(C, u32, Lanes)) -> Self {
        Self::new(info, Handlers::Value { read: |_, _| 0, write })
    }

    /// Returns the narrowest permitted access width. Message and byte-per-interrupt registers
    /// permit accesses narrower than a word, even where they read as zero.
    fn narrowest(&self) -> AccessWidth {
        match (&self.handlers, self.info.access) {
            (Handlers::Zero, AccessKind::ReadWrite) => AccessWidth::Byte,
            (Handlers::Fields { field, .. }, _) if field.bits() == 8 => AccessWidth::Byte,
            (_, AccessKind::WriteOnly) if self.info.bytes == 4 => AccessWidth::Half,
            _ => AccessWidth::Word,
        }
    }
}

impl<C: Copy> Register<C> {
    #[inline]
    fn read(&self, context: C, index: u32) -> u64 {
        match &self.handlers {
            Handlers::Value { read, .. } => read(context, index),
            Handlers::Bits { field, read, .. } => {
                field.range().intid_at(32 * index).map_or(0, |first| read(context, first).into())
            }
            Handlers::Zero | Handlers::Fields { .. } => self.read_fields(context, index),
        }
    }

    /// Reads a register with a field per interrupt, or with none.
    #[inline(never)]
    fn read_fields(&self, context: C, index: u32) -> u64 {
        match &self.handlers {
            Handlers::Zero | Handlers::Value { .. } | Handlers::Bits { .. } => 0,
            Handlers::Fields { field, read, .. } => fields(*field, index)
                .map(|(intid, shift, mask)| u64::from(read(context, intid) & mask) << shift)
                .fold(0, |register, field| register | field),
        }
    }

    fn write(&self, context: C, index: u32, lanes: Lanes, refused: &mut dyn FnMut(Refusal)) {
        match &self.handlers {
            Handlers::Zero => {}
            Handlers::Value { write, .. } => write(context, index, lanes),
            Handlers::Bits { field, write, .. } => {
                for bit in set_bits(lanes.value & u64::from(u32::MAX)) {
                    let number = 32 * index + low_word(bit as u64);
                    if let Some(intid) = field.range().intid_at(number)
                        && let Err(NoSuchInterrupt) = write(context, intid)
                    {
                        refused(self.missing(index, intid));
                    }
                }
            }
            Handlers::Fields { field, write, .. } => {
                for (intid, shift, mask) in fields(*field, index) {
                    let mask64 = u64::from(mask) << shift;
                    let value = low_word((lanes.value & mask64) >> shift);
                    if lanes.mask & mask64 == mask64
                        && let Err(NoSuchInterrupt) = write(context, intid, value)
                    {
                        refused(self.missing(index, intid));
                    }
                }
            }
        }
    }

    /// Refuses a write to the field of an interrupt that does not exist.
    fn missing(&self, index: u32, intid: IntId) -> Refusal {
        Refusal::missing(self.info.offset + index * self.info.bytes, intid)
    }
}

/// Iterates over the interrupts in one register of a field array, with the shift and mask for each.
/// Skips field numbers without an interrupt, so they read as zero.
fn fields(field: IntIdField, index: u32) -> impl Iterator<Item = (IntId, u32, u32)> {
    let bits = field.bits();
    let per_register = 32 / bits;
    let mask = u32::MAX >> (32 - bits);
    (0..per_register).filter_map(move |number| {
        let intid = field.range().intid_at(index * per_register + number)?;
        Some((intid, number * bits, mask))
    })
}

/// Register, index and shift for an access.
struct Addressed<'a, C> {
    register: &'a Register<C>,
    index: u32,
    shift: u32,
}

/// Register table, sorted by offset.
pub(crate) struct Frame<'a, C> {
    pub(crate) registers: &'a [Register<C>],
    pub(crate) index: &'a FrameIndex<'a, C>,
}

/// Log2 of the number of bytes in a block.
const BLOCK_BITS: u32 = 7;
/// Number of words at the start of a frame that are indexed one by one. The pointers of an ITS's
/// command queue are among them.
const FIRST_WORDS: usize = 64;
/// Number of blocks in the largest frame, an ITS.
const BLOCKS: usize = 1 << (17 - BLOCK_BITS);

/// Index of a frame's register table.
pub(crate) struct FrameIndex<'a, C> {
    /// The registers that contain the frame's first words.
    words: [Option<&'a Register<C>>; FIRST_WORDS],
    /// For each block, the number of the first register that ends after the start of the block.
    /// Most arrays of registers fill blocks.
    blocks: [u8; BLOCKS],
}

impl<'a, C> FrameIndex<'a, C> {
    /// Creates the index of a table.
    pub(crate) const fn of(registers: &'a [Register<C>]) -> Self {
        let (mut words, mut blocks) = ([None; FIRST_WORDS], [0; BLOCKS]);
        let mut at = 0;
        while at < BLOCKS {
            let mut number = 0;
            while (number as usize) < registers.len()
                && registers[number as usize].info.end() as usize <= at << BLOCK_BITS
            {
                number += 1;
            }
            blocks[at] = number;
            at += 1;
        }
        let mut number = 0;
        while number < registers.len() {
            let info = &registers[number].info;
            let mut word = info.offset as usize / 4;
            while word < FIRST_WORDS && 4 * word < info.end() as usize {
                words[word] = Some(&registers[number]);
                word += 1;
            }
            number += 1;
        }
        Self { words, blocks }
    }
}

impl<C: Copy> Frame<'_, C> {
    /// Reads a whole 32-bit register, as most accesses do. Returns `None` for any other access,
    /// which must then be passed to [`read`](Self::read).
    #[inline]
    pub(crate) fn read_word(&self, context: C, offset: u32, width: AccessWidth) -> Option<u64> {
        match self.word_at(offset, width) {
            Some((register, index)) if register.info.access != AccessKind::WriteOnly => {
                Some(register.read(context, index))
            }
            _ => None,
        }
    }

    /// Reads `width` at `offset`. Refused accesses read as zero and are passed to `refused`.
    #[inline]
    pub(crate) fn read(
        &self,
        context: C,
        offset: u32,
        width: AccessWidth,
        refused: &mut dyn FnMut(Refusal),
    ) -> u64 {
        match self.read_word(context, offset, width) {
            Some(value) => value,
            None => self.read_any(context, offset, width, refused),
        }
    }

    /// Reads like [`read`](Self::read), without its fast path.
    #[inline(never)]
    fn read_any(
        &self,
        context: C,
        offset: u32,
        width: AccessWidth,
        refused: &mut dyn FnMut(Refusal),
    ) -> u64 {
        let register = self.register_at(offset);
        if let Some(double) = register.filter(|double| is_double(double, offset, width))
            && double.info.access != AccessKind::WriteOnly
        {
            return double.read(context, (offset - double.info.offset) / 8);
        }
        if splits(register, offset, width) {
            let low = self.read(context, offset, AccessWidth::Word, refused);
            return low | self.read(context, offset + 4, AccessWidth::Word, refused) << 32;
        }
        match find(register, offset, width) {
            Ok(found) if found.register.info.access == AccessKind::WriteOnly => {
                refused(Refusal::new(offset, FaultReason::AccessDirection));
                0
            }
            Ok(found) => (found.register.read(context, found.index) >> found.shift) & width.mask(),
            Err(reason) => {
                refused(Refusal::new(offset, reason));
                0
            }
        }
    }

    /// Writes `width` at `offset`. Refused writes have no effect and are passed to `refused`.
    #[inline]
    pub(crate) fn write(
        &self,
        context: C,
        offset: u32,
        width: AccessWidth,
        value: u64,
        refused: &mut dyn FnMut(Refusal),
    ) {
        match self.word_at(offset, width) {
            Some((register, index)) if register.info.access != AccessKind::ReadOnly => {
                register.write(context, index, Lanes { value, mask: width.mask() }, refused);
            }
            _ => self.write_any(context, offset, width, value, refused),
        }
    }

    /// Writes like [`write`](Self::write), without its fast path.
    #[inline(never)]
    fn write_any(
        &self,
        context: C,
        offset: u32,
        width: AccessWidth,
        value: u64,
        refused: &mut dyn FnMut(Refusal),
    ) {
        let register = self.register_at(offset);
        if let Some(double) = register.filter(|double| is_double(double, offset, width))
            && double.info.access != AccessKind::ReadOnly
        {
            let index = (offset - double.info.offset) / 8;
            return double.write(context, index, Lanes { value, mask: width.mask() }, refused);
        }
        if splits(register, offset, width) {
            self.write(context, offset, AccessWidth::Word, value & 0xffff_ffff, refused);
            self.write(context, offset + 4, AccessWidth::Word, value >> 32, refused);
            return;
        }
        match find(register, offset, width) {
            Ok(found) if found.register.info.access == AccessKind::ReadOnly => {
                refused(Refusal::new(offset, FaultReason::AccessDirection));
            }
            Ok(found) => {
                let mask = width.mask() << found.shift;
                found.register.write(
                    context,
                    found.index,
                    Lanes { value: (value << found.shift) & mask, mask },
                    refused,
                );
            }
            Err(reason) => refused(Refusal::new(offset, reason)),
        }
    }

    /// Returns the register at `offset` and its index, if an access of this width accesses one
    /// 32-bit register as a whole.
    #[inline]
    fn word_at(&self, offset: u32, width: AccessWidth) -> Option<(&Register<C>, u32)> {
        let is_word = width == AccessWidth::Word && offset.is_multiple_of(4);
        let register = if is_word { self.register_at(offset)? } else { return None };
        (register.info.bytes == 4).then_some((register, (offset - register.info.offset) / 4))
    }

    #[inline]
    fn register_at(&self, offset: u32) -> Option<&Register<C>> {
        if let Some(register) = self.index.words.get((offset / 4) as usize) {
            return *register;
        }
        let mut first = usize::from(*self.index.blocks.get((offset >> BLOCK_BITS) as usize)?);
        let register = loop {
            let register = self.registers.get(first)?;
            if offset < register.info.end() {
                break register;
            }
            first += 1;
        };
        (register.info.offset <= offset).then_some(register)
    }
}

/// Returns `true` if an access of this width accesses a 64-bit register as a whole.
#[inline]
const fn is_double<C>(register: &Register<C>, offset: u32, width: AccessWidth) -> bool {
    matches!(width, AccessWidth::Double) && register.info.bytes == 8 && offset.is_multiple_of(8)
}

/// Returns `true` for an aligned 64-bit access to narrower registers. Such an access is split into
/// two word accesses.
fn splits<C>(register: Option<&Register<C>>, offset: u32, width: AccessWidth) -> bool {
    width == AccessWidth::Double
        && offset.is_multiple_of(8)
        && register.is_none_or(|register| register.info.bytes < 8)
}

/// Finds the register, index and shift for an access at `offset`.
fn find<C>(
    register: Option<&Register<C>>,
    offset: u32,
    width: AccessWidth,
) -> Result<Addressed<'_, C>, FaultReason> {
    if !offset.is_multiple_of(width.bytes()) {
        return Err(FaultReason::AccessWidth);
    }
    let register = register.ok_or(FaultReason::UnknownRegister)?;
    let index = register.info.index_of(offset).ok_or(FaultReason::UnknownRegister)?;
    if width < register.narrowest() {
        return Err(FaultReason::AccessWidth);
    }
    let shift = 8 * (offset - register.info.offset - index * register.info.bytes);
    Ok(Addressed { register, index, shift })
}

/// Identification registers, which every frame has.
pub(crate) const ID_REGISTERS: RegisterInfo = id::REGISTERS.info("PIDR4");

/// Returns an identification register by index. The values are those of Arm's own GICv3
/// implementations, with the frame's part number.
pub(crate) fn identification(index: u32, part: u8) -> u64 {
    let registers = [0x44, 0, 0, 0, part, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    usize::try_from(index).ok().and_then(|index| registers.get(index)).copied().unwrap_or(0).into()
}

/// Returns the low 32 bits of a value, i.e. the whole value of a 32-bit register.
#[expect(clippy::cast_possible_truncation, reason = "callers hold 32-bit register values")]
pub(crate) const fn low_word(value: u64) -> u32 {
    value as u32
}

/// Returns the lowest byte.
pub(crate) const fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}
