//! From text to bytecode that we made: shards load this, and never an author's own.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Arc;

use base::ShardId;
use postroad_base as base;

use crate::lua::{Host, Returned, Stack, State, Thrown};
use crate::plugin::Account;
use crate::{Diagnostic, Limits, PluginName, Set, SetHash, Source, Stores, Vm};

/// One plugin as bytecode.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) name: PluginName,
    pub(crate) file: String,
    pub(crate) hash: SetHash,
    pub(crate) bytecode: Arc<[u8]>,
}

/// A set as bytecode. Goes to the shards.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) units: Arc<[Unit]>,
    hash: SetHash,
}

impl Compiled {
    /// Of the set that it was compiled from.
    pub fn hash(&self) -> SetHash {
        self.hash
    }

    /// Its plugins, with the hash of each one's text.
    pub fn plugins(&self) -> impl Iterator<Item = (&PluginName, SetHash)> {
        self.units.iter().map(|unit| (&unit.name, unit.hash))
    }
}

impl Set {
    /// Compiles every plugin, loads them all in a VM that is thrown away, and looks at their tables. Nothing of them is called.
    ///
    /// # Errors
    /// Everything that is wrong with them, in the order of their names.
    pub fn compile(&self, limits: &Limits) -> Result<Compiled, Vec<Diagnostic>> {
        let mut units = Vec::new();
        let mut diagnostics = Vec::new();
        for source in self.sources() {
            match compile_one(source, limits) {
                Ok(unit) => units.push(unit),
                Err(diagnostic) => diagnostics.push(*diagnostic),
            }
        }
        let compiled = Compiled { units: units.into(), hash: self.hash() };
        let stores = Rc::new(RefCell::new(Stores::new()));
        match Vm::new(&compiled, limits, ShardId(0), stores) {
            Ok(mut vm) => diagnostics.extend(codec_flaws(&mut vm, &compiled)),
            Err(more) => diagnostics.extend(more),
        }
        if diagnostics.is_empty() {
            return Ok(compiled);
        }
        diagnostics.iter_mut().for_each(|diagnostic| self.find_line(diagnostic));
        diagnostics.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
        Err(diagnostics)
    }

    /// A table has no lines: what is wrong under a key is shown where the key first stands as a word.
    fn find_line(&self, diagnostic: &mut Diagnostic) {
        let (None, Some(word)) = (diagnostic.line, diagnostic.hook.as_deref()) else { return };
        let Some(source) = self.sources().iter().find(|source| source.name == diagnostic.plugin) else { return };
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        for (number, line) in source.text.lines().enumerate() {
            for (at, _) in line.match_indices(word) {
                let bytes = line.as_bytes();
                let before = at.checked_sub(1).and_then(|before| bytes.get(before));
                if !is_word(before) && !is_word(bytes.get(at + word.len())) {
                    diagnostic.line = u32::try_from(number + 1).ok();
                    return;
                }
            }
        }
    }
}

/// What is wrong with the codecs of a set.
fn codec_flaws(vm: &mut Vm, compiled: &Compiled) -> Vec<Diagnostic> {
    let flaw = |(name, _): (&PluginName, SetHash)| crate::codec::of_plugin(vm, name)?.err();
    compiled.plugins().filter_map(flaw).collect()
}

/// What Lua calls the text: `NAME.lua`, at the head of errors and in tracebacks.
pub(crate) fn chunk_name(name: &PluginName) -> CString {
    CString::new(format!("@{name}.lua")).expect("a name has no byte 0")
}

fn compile_one(source: &Source, limits: &Limits) -> Result<Unit, Box<Diagnostic>> {
    let stores = Rc::new(RefCell::new(Stores::new()));
    let host = Host::new(limits, ShardId(0), stores);
    let mut state = State::new(host).ok_or_else(|| Box::new(flaw(source, None, "no memory for a VM".to_owned())))?;
    state.host_mut().memory.held.push(0);
    state.host_mut().accounts.push(Account::new(source.name.clone(), source.hash, limits, base::ShardId(0)));
    let name = chunk_name(&source.name);
    let mut bytecode = Vec::new();
    let compiled = state.protected(1, true, |stack: Stack<'_>| -> Returned {
        if !stack.load(source.text.as_bytes(), &name, false) {
            return Err(crate::lua::Fault::Value);
        }
        stack.dump(&mut bytecode);
        Ok(0)
    });
    let unit = |bytecode: Vec<u8>| Unit {
        name: source.name.clone(),
        file: source.file.clone(),
        hash: source.hash,
        bytecode: bytecode.into(),
    };
    compiled.map_err(|Thrown { text, line, .. }| Box::new(flaw(source, line, text)))?;
    Ok(unit(bytecode))
}

fn flaw(source: &Source, line: Option<u32>, message: String) -> Diagnostic {
    Diagnostic { file: source.file.clone(), line, column: None, plugin: source.name.clone(), hook: None, message }
}
