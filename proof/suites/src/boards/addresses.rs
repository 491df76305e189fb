//! Register addresses in the devicetree compiler's output. The translation to CPU addresses shares
//! no code with the command's.

use super::devicetree::{Node, Tree, above};

impl Tree {
    /// Returns the register regions in CPU addresses, with `None` for each region that cannot be
    /// translated.
    pub(super) fn regions(&self, node: &Node) -> Vec<Option<(u64, u64)>> {
        let (address, size) = self.shape(above(&node.path));
        let cells = node.cells("reg");
        let regions = cells.chunks_exact((address + size).max(1)).map(|region| {
            let (base, length) = region.split_at(address);
            Some((self.translate(above(&node.path), number(base))?, number(length)))
        });
        regions.collect()
    }

    /// Translates an address on the bus at `path` to the root.
    fn translate(&self, path: &str, address: u64) -> Option<u64> {
        let Some(bus) = self.node(path).filter(|_| !path.is_empty()) else { return Some(address) };
        let upper = above(path);
        if !bus.has("ranges") {
            return None;
        }
        let (child, size) = self.shape(path);
        let (parent, _) = self.shape(upper);
        let ranges = bus.cells("ranges");
        if ranges.is_empty() {
            return self.translate(upper, address);
        }
        let found = ranges.chunks_exact(child + parent + size).find_map(|range| {
            let (from, rest) = range.split_at(child);
            let (to, length) = rest.split_at(parent);
            let offset = address.checked_sub(number(from))?;
            (offset < number(length)).then(|| number(to) + offset)
        });
        self.translate(upper, found?)
    }

    /// Returns `#address-cells` and `#size-cells` of the bus at `path`.
    fn shape(&self, path: &str) -> (usize, usize) {
        let stated = |name: &str| {
            let mut at = path;
            loop {
                if let Some(&[count]) = self.node(at).map(|node| node.cells(name)).as_deref() {
                    return count as usize;
                }
                if at.is_empty() {
                    return 1;
                }
                at = above(at);
            }
        };
        (stated("#address-cells"), stated("#size-cells"))
    }

    pub(super) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.path == path)
    }
}

pub(super) fn number(cells: &[u32]) -> u64 {
    cells.iter().fold(0, |number, cell| number << 32 | u64::from(*cell))
}
