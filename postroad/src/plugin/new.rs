//! `postroad plugin new`: a plugin that works, with a test that passes, to be changed.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use postroad_plugins::PluginName;

use super::args::{NewArgs, Template};
use super::stubs;

/// Where the stubs lie below the plugins: not a plugin of the server, which reads no folders in its own.
const STUBS_FOLDER: &str = ".luals";

/// What the Lua language server reads in the folder.
const LUARC: &str = r#"{
  "runtime.version": "Lua 5.4",
  "workspace.library": [".luals"],
  "diagnostics.globals": ["postroad"]
}
"#;

/// The plugin and its test.
fn texts(template: Template) -> (&'static str, &'static str) {
    match template {
        Template::Route => (include_str!("templates/route.lua"), include_str!("templates/route_test.lua")),
        Template::DeadLetter => {
            (include_str!("templates/dead_letter.lua"), include_str!("templates/dead_letter_test.lua"))
        }
        Template::Access => (include_str!("templates/access.lua"), include_str!("templates/access_test.lua")),
        Template::Frame => (include_str!("templates/frame.lua"), include_str!("templates/frame_test.lua")),
        Template::State => (include_str!("templates/state.lua"), include_str!("templates/state_test.lua")),
    }
}

/// Runs the command. Nothing is written over.
pub fn new(args: &NewArgs) -> Result<bool> {
    let NewArgs { name, template, dir } = args;
    let Some(name) = PluginName::new(name).filter(|name| !name.as_str().ends_with("_test")) else {
        bail!(
            "{name:?} is no name: it has a-z, 0-9, '_' and '-', begins with a letter, has at most 63 of them, and does not end in _test"
        );
    };
    std::fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    let (plugin, test) = texts(*template);
    let files = [(format!("{name}.lua"), plugin), (format!("{name}_test.lua"), test)];
    if let Some((file, _)) = files.iter().find(|(file, _)| dir.join(file).exists()) {
        bail!("{} is there already", dir.join(file).display());
    }
    for (file, text) in &files {
        write_new(&dir.join(file), &text.replace("NAME", name.as_str()))?;
    }
    if !dir.join(".luarc.json").exists() {
        write_new(&dir.join(".luarc.json"), LUARC)?;
    }
    stubs::write(&dir.join(STUBS_FOLDER))?;
    let shown = dir.display();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{shown}/{name}.lua\n{shown}/{name}_test.lua\nnext: postroad plugin test {shown}/{name}.lua")?;
    Ok(true)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::File::create_new(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("can't make {}", path.display()))
}
