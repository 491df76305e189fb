//! Applies overlays to a devicetree: `overlay BASE.dtb RESULT.dtb OVERLAY.dtbo...`

use gic_firmware::devicetree::OverlaidTree;
use std::error::Error;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = env::args_os().skip(1);
    let (base, result) = files.next().zip(files.next()).ok_or("name a base and a result")?;
    let mut tree = OverlaidTree::new(&fs::read(base)?)?;
    for overlay in files {
        tree.apply(&fs::read(overlay)?)?;
    }
    fs::write(result, tree.to_blob())?;
    Ok(())
}
