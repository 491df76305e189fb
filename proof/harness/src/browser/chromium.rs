//! Chromium and its WebDriver, unpacked from Debian's packages.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::apt::{Apt, Suite};
use crate::cache;
use crate::dtb::Tools;
use crate::workspace::Workspace;

const PACKAGES: [&str; 3] = ["chromium", "chromium-driver", "fonts-dejavu-core"];
/// Path of the Fontconfig configuration in the packages' folder.
pub(super) const FONTS: &str = "fonts.conf";
/// Path of the browser in that folder: the executable, not the script that starts it on a desktop.
pub(super) const BROWSER: &str = "usr/lib/chromium/chromium";

/// Unpacks the packages into the cache.
pub fn fetch(workspace: &Workspace) -> Result<Tools> {
    let folder = cache::folder(workspace).join("chromium");
    if !cache::is_filled(&folder) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || {
            apt.unpack_with_needs(&PACKAGES, Suite::Stable, &folder)?;
            fs::write(folder.join(FONTS), fonts(&folder)).map_err(Into::into)
        })?;
    }
    Ok(Tools::at(folder))
}

/// Returns a configuration with the fonts of the package and of the machine.
fn fonts(folder: &Path) -> String {
    let folder = folder.display();
    let alias = |generic: &str, font: &str| {
        format!("<alias><family>{generic}</family><prefer><family>{font}</family></prefer></alias>")
    };
    let aliases = [
        alias("sans-serif", "DejaVu Sans"),
        alias("system-ui", "DejaVu Sans"),
        alias("monospace", "DejaVu Sans Mono"),
    ];
    format!(
        "<?xml version=\"1.0\"?>\n<fontconfig>\n<dir>{folder}/usr/share/fonts</dir>\n\
         <dir>/usr/share/fonts</dir>\n<cachedir>{folder}/fontconfig</cachedir>\n{}\n\
         </fontconfig>\n",
        aliases.join("\n")
    )
}
