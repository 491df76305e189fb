//! A sound machine's tables, into which mistakes can be planted.

use super::bytes::{
    Bytes, Mapping, gicc, gicd, gicr, iort, its, its_group, madt, mcfg, named_component, node,
    pmcg, root_complex, smmu_v3,
};

/// Numbers of the MADT structures and IORT nodes of the sound machine.
pub(super) const CPU: usize = 0;
pub(super) const GICD: usize = 4;
pub(super) const GICR: usize = 5;
pub(super) const ITS: usize = 6;
pub(super) const GROUP: usize = 0;
pub(super) const SMMU: usize = 1;
pub(super) const COMPLEX: usize = 2;
pub(super) const OTHER_COMPLEX: usize = 3;
pub(super) const COMPONENT: usize = 4;
pub(super) const COUNTERS: usize = 5;
pub(super) const RMR: usize = 6;

/// Offsets of the ITS group and the SMMU in the IORT.
pub(super) const AT_GROUP: u32 = 48;
pub(super) const AT_SMMU: u32 = AT_GROUP + 24;
/// Bytes from the start of a node to its ID mappings.
pub(super) const SMMU_MAPPINGS: usize = 68;
pub(super) const COMPLEX_MAPPINGS: usize = 36;

/// The parts of a machine's tables.
pub(super) struct Machine {
    madt: Vec<Vec<u8>>,
    pub(super) nodes: Vec<Vec<u8>>,
    /// Base address, segment, first and last bus.
    pub(super) windows: Vec<(u64, u16, u8, u8)>,
}

impl Machine {
    pub(super) fn tables(&self) -> Vec<Vec<u8>> {
        vec![madt(&self.madt), iort(&self.nodes), mcfg(&self.windows)]
    }

    /// Replaces bytes of a MADT structure.
    pub(super) fn structure(mut self, number: usize, at: usize, bytes: &[u8]) -> Self {
        plant(&mut self.madt[number], at, bytes);
        self
    }

    /// Replaces bytes of the GICC structures.
    pub(super) fn each_cpu(mut self, at: usize, bytes: &[u8]) -> Self {
        self.madt[..GICD].iter_mut().for_each(|cpu| plant(cpu, at, bytes));
        self
    }

    /// Replaces bytes of an IORT node.
    pub(super) fn node(mut self, number: usize, at: usize, bytes: &[u8]) -> Self {
        plant(&mut self.nodes[number], at, bytes);
        self
    }

    /// Replaces a word of an ID mapping of an IORT node: the first input ID, the number of IDs
    /// minus one, the first output ID, the target or the flags.
    pub(super) fn mapping(self, number: usize, mappings: usize, word: usize, value: u32) -> Self {
        self.node(number, mappings + 4 * word, &value.to_le_bytes())
    }

    pub(super) fn with(mut self, structure: Vec<u8>) -> Self {
        self.madt.push(structure);
        self
    }

    pub(super) fn windows(self, windows: &[(u64, u16, u8, u8)]) -> Self {
        Self { windows: windows.to_vec(), ..self }
    }
}

/// Returns four CPUs with a GICv3, an ITS, an SMMU in front of segment 0, and a segment 1.
pub(super) fn sound() -> Machine {
    let cpus = (0..4u32).map(|uid| gicc(82, uid, 1, u64::from(uid), 0));
    let gic = [gicd(0x800_0000, 3), gicr(0, 0x80a_0000, 0x8_0000), its(0, 0, 0x808_0000)];
    let through: &[Mapping] = &[[0, 0xffff, 0, AT_GROUP, 0], [0, 0, 0x3_0000, AT_GROUP, 1]];
    let coherent = |complex: Vec<u8>| planted(complex, 16, &[1, 0, 0, 0, 0, 0, 0, 3]);
    let range = Bytes::default().u32(0).u32(1).u32(28).u64(0x9000_0000).u64(0x2_0000).u32(0).0;
    let nodes = vec![
        its_group(&[0]),
        smmu_v3(3, 0, 74, 1, through),
        coherent(root_complex(0, &[[0, 0xffff, 0, AT_SMMU, 0]])),
        coherent(root_complex(1, &[[0, 0xffff, 0x1_0000, AT_GROUP, 0]])),
        named_component("\\_SB_.DMA0", &[[0, 0, 0x2_0000, AT_GROUP, 1]]),
        pmcg(90, &[]),
        node(6, 3, &range, &[[0, 0, 0x2_0001, AT_SMMU, 1]]),
    ];
    let windows = vec![(0x40_1000_0000, 0, 0, 0xff), (0x50_1000_0000, 1, 0, 0xff)];
    Machine { madt: cpus.chain(gic).collect(), nodes, windows }
}

pub(super) fn plant(structure: &mut [u8], at: usize, bytes: &[u8]) {
    structure[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn planted(mut structure: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    plant(&mut structure, at, bytes);
    structure
}
