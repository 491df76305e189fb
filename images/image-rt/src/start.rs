//! Initializes an image: console, PSCI conduit, an optional heap, and essential facts from the
//! devicetree.

use crate::power::Conduit;
use crate::{Boot, console, cpu, power};
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use gic_driver::PhysicalRegion;

/// `compatible` strings of a GICv3 and of the GICv2 of `virt`.
const GICS: [&str; 2] = ["arm,gic-v3", "arm,cortex-a15-gic"];

/// `compatible` string of the i.MX 8M Plus.
const IMX8MP: &str = "fsl,imx8mp";

/// Facts about the machine that an image knows when it starts.
#[derive(Clone, Debug)]
pub struct Started {
    /// The devicetree.
    pub devicetree: &'static [u8],
    /// RAM.
    pub memory: Range<usize>,
    /// First two regions of the GIC: the distributor, and a GICv3's redistributors or a GICv2's CPU
    /// interface (devicetree bindings `arm,gic-v3` and `arm,gic`).
    pub gic: Option<[PhysicalRegion; 2]>,
}

impl Started {
    /// Returns the loader's command line, or an empty string if the loader passed none.
    pub fn command_line(&self) -> &'static str {
        let chosen = Fdt::new_unchecked(self.devicetree).root().child("chosen");
        let text = chosen.and_then(|chosen| chosen.property("bootargs"));
        text.and_then(|text| text.value_as::<&str>().ok()).unwrap_or_default()
    }
}

/// Initializes the console, firmware's conduit and, if enabled, the heap. Must be called once,
/// before any other function of the runtime.
///
/// # Safety
/// `boot` must be the value that the loader passed, and RAM behind the image must not be in use.
pub unsafe fn start(boot: Boot) -> Started {
    // SAFETY: the loader put the devicetree there. The devicetree is outside of the image and,
    // because of `heap::free_memory`, outside of the heap.
    let devicetree = unsafe { blob(boot.devicetree) };
    // The validation refuses property names of more than 31 characters, which boards have.
    let tree = Fdt::new_unchecked(devicetree);
    console::init(tree.root().is_compatible(IMX8MP));
    let guess = if cpu::level() == cpu::Level::El2 { Conduit::Smc } else { Conduit::Hvc };
    power::set_conduit(boot.conduit.unwrap_or(guess));
    let memory = ram(tree).unwrap_or_else(|| panic!("the devicetree states no memory"));
    // SAFETY: the caller guarantees that only the devicetree uses RAM behind the image.
    #[cfg(feature = "heap")]
    unsafe {
        crate::heap::init(crate::heap::free_memory(&memory, boot.devicetree));
    }
    power::set_conduit(boot.conduit.unwrap_or_else(|| conduit(tree)));
    Started { devicetree, memory, gic: gic(tree) }
}

/// Returns the devicetree blob that the loader passed.
///
/// # Safety
/// A devicetree must be at `address`, and must not change while the program runs.
unsafe fn blob(address: usize) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the caller guarantees that a devicetree is there, which begins with its magic number
    // and its size.
    let size = unsafe { core::slice::from_raw_parts(start, 8) };
    let size = u32::from_be_bytes([size[4], size[5], size[6], size[7]]);
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(start, size as usize) }
}

fn conduit(tree: Fdt<'_>) -> Conduit {
    let root = tree.root();
    let method = root.child("psci").and_then(|psci| psci.property("method"));
    match method.and_then(|method| method.value_as::<&str>().ok()) {
        Some("smc") => Conduit::Smc,
        _ => Conduit::Hvc,
    }
}

fn ram(tree: Fdt<'_>) -> Option<Range<usize>> {
    let node = tree.root().children().find(|node| node.name_without_address() == "memory")?;
    let first = node.reg().ok()??.next()?;
    let (start, size) = (first.address::<u64>().ok()?, first.size::<u64>().ok()?);
    Some(start as usize..(start + size) as usize)
}

fn gic(tree: Fdt<'_>) -> Option<[PhysicalRegion; 2]> {
    let is_gic = |node: &FdtNode<'_>| GICS.iter().any(|name| node.is_compatible(name));
    let node = tree.root().children().find(is_gic)?;
    let mut regions = node.reg().ok()??.map(|region| {
        let (base, bytes) = (region.address::<u64>().ok()?, region.size::<u64>().ok()?);
        Some(PhysicalRegion { base, bytes })
    });
    Some([regions.next()??, regions.next()??])
}
