//! Codecs of the generation that answers. A trial has no say: bytes come before there is a client to choose by.

use std::cell::Cell;
use std::rc::Rc;

use base::Now;
use postroad_base as base;
use postroad_protocol::frame::{Codec, Declared};

use super::{Generations, Life, Plugins};
use crate::codec::{Calls, Functions, Made, of_plugin};
use crate::{Callable, Diagnostic, Failure, Hook, Plain, PluginName, Vm};

impl Plugins {
    /// The codec of this plugin, good until another generation answers. Functions find in `time` what time it is.
    ///
    /// # Errors
    /// What is wrong with it; a set with such a plugin does not compile.
    pub fn codec(&self, plugin: &PluginName, time: &Rc<Cell<Now>>) -> Option<Result<Box<dyn Codec>, Diagnostic>> {
        let mut this = self.0.borrow_mut();
        let stamp = this.answering.stamp();
        let made = of_plugin(this.answering.vm.as_mut()?, plugin)?;
        Some(made.map(|made| -> Box<dyn Codec> {
            match made {
                Made::Declared(plan) => Box::new(Declared::new(plan)),
                Made::Functions(table) => {
                    let calls = OfGeneration { plugins: self.clone(), stamp, time: Rc::clone(time) };
                    Box::new(Functions::new(calls, *table))
                }
            }
        }))
    }

    /// Whether this plugin of the generation that was made ready has a codec.
    pub fn has_codec_ready(&self, plugin: &PluginName) -> bool {
        let mut this = self.0.borrow_mut();
        this.ready.as_mut().is_some_and(|ready| of_plugin(&mut ready.vm, plugin).is_some())
    }
}

/// Calls functions of the generation that gave them.
#[derive(Debug)]
struct OfGeneration {
    plugins: Plugins,
    stamp: u32,
    time: Rc<Cell<Now>>,
}

impl Calls for OfGeneration {
    fn call(&mut self, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure> {
        let mut this = self.plugins.0.borrow_mut();
        match this.vm_of_stamp(self.stamp) {
            Some(vm) => vm.call(self.time.get(), function, arguments),
            None => Err(Failure {
                plugin: function.plugin().clone(),
                hook: Hook::Codec,
                line: None,
                message_id: None,
                text: "its generation is gone".to_owned(),
            }),
        }
    }
}

impl Generations {
    fn vm_of_stamp(&mut self, stamp: u32) -> Option<&mut Vm> {
        let mut lives = std::iter::once(&mut self.answering).chain(&mut self.older);
        lives.find(|life: &&mut Life| life.stamps.contains(&stamp))?.vm.as_mut()
    }
}
