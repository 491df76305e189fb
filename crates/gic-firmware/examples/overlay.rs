//! Applies overlays to a devicetree: `overlay BASE.dtb RESULT.dtb OVERLAY.dtbo...`
//!
//! Without files, it applies the overlays of this crate's tests, and prints the size of the result.

use gic_firmware::devicetree::OverlaidTree;
use std::error::Error;
use std::{env, fs};

const BASE: &[u8] = include_bytes!("../tests/overlay/base.dtb");
const OVERLAYS: [&[u8]; 2] =
    [include_bytes!("../tests/overlay/first.dtbo"), include_bytes!("../tests/overlay/second.dtbo")];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = env::args_os().skip(1);
    let Some(base) = files.next() else {
        let mut tree = OverlaidTree::new(BASE)?;
        for overlay in OVERLAYS {
            tree.apply(overlay)?;
        }
        println!("{} bytes with {} overlays", tree.to_blob().len(), OVERLAYS.len());
        return Ok(());
    };
    let result = files.next().ok_or("name a base, a result, and overlays")?;
    let mut tree = OverlaidTree::new(&fs::read(base)?)?;
    for overlay in files {
        tree.apply(&fs::read(overlay)?)?;
    }
    fs::write(result, tree.to_blob())?;
    Ok(())
}
