//! The program's disk: a FAT16 volume with one file (Microsoft's "FAT: General Overview of On-Disk
//! Format", 1.03).

/// Bytes per sector.
const SECTOR: usize = 512;
/// Sectors per cluster.
const CLUSTER: u8 = 4;
/// Sectors of the volume, which has 32 MiB so that its number of clusters needs 16 bits.
const SECTORS: usize = 65536;
/// Sectors of each of the two tables.
const TABLE: usize = SECTORS / CLUSTER as usize * 2 / SECTOR;
/// Entries of the root directory, which fill 32 sectors.
const ROOT_ENTRIES: usize = 512;

/// Bytes of the file that the program reads.
const INPUT_BYTES: u32 = 1_000_000;

/// Returns the content of the file that the program reads: a sequence without a short period.
pub fn input() -> Vec<u8> {
    let numbers = (0..INPUT_BYTES / 4).map(|index| index.wrapping_mul(0x9e37_79b9));
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// Returns the line that the program writes to the disk after it has read this content: its FNV-1a
/// hash.
pub fn checksum_line(content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("checksum {hash:016x}\n")
}

/// Returns a volume whose only file, `INPUT.BIN`, has this content.
pub fn disk(content: &[u8]) -> Vec<u8> {
    let mut volume = boot_sector();
    let table = table(content.len().div_ceil(SECTOR * usize::from(CLUSTER)));
    volume.extend(table.iter().chain(&table));
    let mut root = b"INPUT   BIN\x20".to_vec();
    root.resize(26, 0);
    root.extend(2_u16.to_le_bytes());
    root.extend(u32::try_from(content.len()).unwrap_or(0).to_le_bytes());
    root.resize(ROOT_ENTRIES * 32, 0);
    volume.extend(root);
    volume.extend(content);
    volume.resize(SECTORS * SECTOR, 0);
    volume
}

fn boot_sector() -> Vec<u8> {
    let mut sector = b"\xeb\x3c\x90DOORBELL".to_vec();
    sector.extend(half(SECTOR));
    sector.push(CLUSTER);
    sector.extend(half(1)); // Reserved sectors.
    sector.push(2); // Tables.
    sector.extend(half(ROOT_ENTRIES));
    sector.extend(half(0)); // The number of sectors does not fit here.
    sector.push(0xf8); // Fixed disk.
    sector.extend(half(TABLE));
    sector.resize(32, 0);
    sector.extend(u32::try_from(SECTORS).unwrap_or(0).to_le_bytes());
    sector.extend([0x80, 0, 0x29]); // The next three fields exist.
    sector.extend(b"1234DOORBELL   FAT16   ");
    sector.resize(SECTOR - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Returns a table in which a file occupies the first `clusters` clusters.
fn table(clusters: usize) -> Vec<u8> {
    let chain = (3..clusters + 2).flat_map(half);
    let mut table = vec![0xf8, 0xff, 0xff, 0xff];
    table.extend(chain.chain(half(0xffff)));
    table.resize(TABLE * SECTOR, 0);
    table
}

fn half(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(0).to_le_bytes()
}
