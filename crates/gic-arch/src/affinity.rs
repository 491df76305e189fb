//! PE affinity (DDI 0487, MPIDR_EL1).

use core::fmt;

/// The four affinity levels of a PE. Affinities are ordered by Aff3, then by Aff2, Aff1 and Aff0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Affinity(u32);

impl Affinity {
    /// Creates an affinity from its four levels.
    pub const fn new(aff3: u8, aff2: u8, aff1: u8, aff0: u8) -> Self {
        Self(u32::from_be_bytes([aff3, aff2, aff1, aff0]))
    }

    /// Creates an affinity from `Aff3.Aff2.Aff1.Aff0` packed into 32 bits, with Aff0 in the lowest
    /// byte. `GICR_TYPER[63:32]` and KVM's device attributes use this format.
    pub const fn from_packed(packed: u32) -> Self {
        Self(packed)
    }

    /// Creates an affinity from `MPIDR_EL1` (or a devicetree `reg`): Aff3 in bits 39:32, Aff2–0 in
    /// bits 23:0. Other bits are ignored.
    pub const fn from_mpidr(mpidr: u64) -> Self {
        let bytes = mpidr.to_le_bytes();
        Self::new(bytes[4], bytes[2], bytes[1], bytes[0])
    }

    /// Returns the levels packed into 32 bits, with Aff0 in the lowest byte.
    pub const fn packed(self) -> u32 {
        self.0
    }

    /// Returns the affinity in the layout of `MPIDR_EL1` and `GICD_IROUTER`: Aff3 in bits 39:32,
    /// Aff2–0 in bits 23:0.
    pub const fn mpidr(self) -> u64 {
        let [aff3, aff2, aff1, aff0] = self.levels();
        u64::from_be_bytes([0, 0, 0, aff3, 0, aff2, aff1, aff0])
    }

    /// Returns Aff3, Aff2, Aff1 and Aff0, in this order.
    pub const fn levels(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Returns the lowest level.
    pub const fn aff0(self) -> u8 {
        self.levels()[3]
    }

    /// Returns all levels except the lowest. A single write to an SGI register can only reach PEs
    /// in the same cluster.
    pub const fn cluster(self) -> u32 {
        self.0 >> 8
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [aff3, aff2, aff1, aff0] = self.levels();
        write!(f, "{aff3}.{aff2}.{aff1}.{aff0}")
    }
}

/// Writes the [packed](Affinity::packed) levels.
impl fmt::LowerHex for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// Writes the [packed](Affinity::packed) levels.
impl fmt::UpperHex for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Affinity({self})")
    }
}
