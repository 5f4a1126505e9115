//! Frames in Lua: the table `codec` of a plugin is a declaration, which Rust runs, or two functions for what no declaration
//! can say (`docs/adr/0031-frames.md`).
//!
//! ```text
//! codec = { framing = …, fields = …, messages = … }   ─► Spec ─► Plan: shared by all shards, no Lua while frames flow
//! codec = { decode = function, encode = function, … } ─► Functions: calls the VM for each frame
//! ```

mod functions;
mod keys;
mod splits;
mod table;

use std::rc::Rc;
use std::sync::Arc;

use postroad_base::ShardId;
use postroad_protocol::frame::{Abilities, Plan, SpecError};

pub use functions::{Calls, Functions};
pub use splits::{SplitError, check_splits};
pub use table::spec_of;

use crate::{Callable, CodecTable, Compiled, Diagnostic, Limits, PluginName, Vm};

/// A plugin's codec, read and checked.
#[derive(Clone, Debug)]
pub enum Made {
    /// A declaration.
    Declared(Arc<Plan>),
    /// Functions.
    Functions(Box<FunctionTable>),
}

/// What the table of a codec of functions says.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionTable {
    /// `decode(bytes, client)`: a frame and its size; nil and what is needed; or false and what is broken.
    pub decode: Callable,
    /// `encode(frame)`: bytes; or nil and why they can't be.
    pub encode: Callable,
    /// Largest frame.
    pub bytes_max: usize,
    /// What its frames can say.
    pub abilities: Abilities,
}

/// Reads what a plugin's table says.
///
/// # Errors
/// With the place in the table that is wrong.
pub fn make(table: &CodecTable) -> Result<Made, SpecError> {
    if table.functions.is_empty() {
        let plan = Plan::compile(&spec_of(&table.data)?)?;
        return Ok(Made::Declared(Arc::new(plan)));
    }
    table::functions_of(table).map(|table| Made::Functions(Box::new(table)))
}

/// The codec of a plugin, if it has one.
///
/// # Errors
/// What is wrong with it, as an editor can jump to.
pub fn of_plugin(vm: &mut Vm, plugin: &PluginName) -> Option<Result<Made, Diagnostic>> {
    let table = vm.codec_table(plugin)?;
    Some(table.and_then(|table| make(&table).map_err(|error| diagnostic(vm, plugin, &error))))
}

/// The plugins of a set that have a codec.
pub fn names_of(compiled: &Compiled, limits: &Limits) -> Vec<PluginName> {
    let Ok(mut vm) = Vm::new(compiled, limits, ShardId(0), Rc::default()) else { return Vec::new() };
    let names = compiled.plugins().map(|(name, _)| name.clone());
    names.filter(|name| vm.codec_table(name).is_some()).collect()
}

fn diagnostic(vm: &Vm, plugin: &PluginName, error: &SpecError) -> Diagnostic {
    Diagnostic {
        file: vm.file_of(plugin).unwrap_or_default().to_owned(),
        line: None,
        column: None,
        plugin: plugin.clone(),
        hook: Some("codec".to_owned()),
        // The table itself is the hook's: its name is said.
        message: if error.place == keys::WHOLE { error.detail.clone() } else { error.to_string() },
    }
}
