//! Names of a text and what they stand for: which are free, and which paths (`postroad.store.get`) begin with them; which locals nobody reads.
//!
//! Lua is small: a reader of its statements that keeps a list of scopes is enough. Operators have no order here, since names do not depend on it. The text
//! has been taken by Lua's compiler; on any other the reader goes on at the next token, so it always ends.

use super::lexer::{Token, TokenKind, tokens};

/// A part of a path, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// What is done with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It, or what is behind it, is read or called.
    Read,
    /// It, or its field, is set.
    Written,
    /// A local that is never read.
    Unused,
}

/// One use of a free name, with the names behind it; through a local that stands for such a path as if that was written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use<'a> {
    pub(crate) path: Vec<Part<'a>>,
    /// The last part is a method: `message:also`.
    pub(crate) is_method: bool,
    pub(crate) how: How,
}

/// Functions nest no deeper than Lua's compiler takes them.
const DEPTH_MAX: usize = 220;

/// What `subject_of` knows: the first argument of the function at a key of the plugin's table, by the keys above it (`route`, `run`).
pub(crate) type SubjectOf = fn(&[&str]) -> Option<&'static str>;

/// Everything of this kind in the text, in its order. `subject_of` says for which functions in tables the first parameter stands for a path of its own.
pub(crate) fn uses(text: &str, subject_of: SubjectOf) -> Vec<Use<'_>> {
    let tokens: Vec<_> = tokens(text).into_iter().filter(|token| token.kind != TokenKind::Comment).collect();
    let mut reader =
        Reader { tokens, at: 0, depth: 0, locals: Vec::new(), keys: Vec::new(), uses: Vec::new(), subject_of };
    while reader.at < reader.tokens.len() {
        reader.block();
        reader.at += 1; // of a text that is no Lua: an `end` too many
    }
    reader.close(0);
    reader.uses.sort_by_key(|found| found.path.last().map(|part| (part.line, part.column)));
    reader.uses
}

struct Local<'a> {
    name: Part<'a>,
    /// What it stands for, if that is a path of a free name.
    stands_for: Option<Vec<Part<'a>>>,
    is_read: bool,
}

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    locals: Vec<Local<'a>>,
    /// Keys of the tables around, outermost first.
    keys: Vec<&'a str>,
    uses: Vec<Use<'a>>,
    subject_of: SubjectOf,
}

/// An expression that is no more than a name with names behind it.
type Path<'a> = Option<Vec<Part<'a>>>;

// Tokens.
impl<'a> Reader<'a> {
    fn is(&self, text: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.is(text))
    }

    fn is_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.is(text))
    }

    fn take(&mut self, text: &str) -> bool {
        let is = self.is(text);
        self.at += usize::from(is);
        is
    }

    fn name(&mut self) -> Option<Part<'a>> {
        let token = self.tokens.get(self.at).filter(|token| token.kind == TokenKind::Name)?;
        self.at += 1;
        Some(Part { name: token.text, line: token.line, column: token.column })
    }

    fn is_name(&self, ahead: usize) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.kind == TokenKind::Name)
    }
}

// Scopes.
impl<'a> Reader<'a> {
    fn declare(&mut self, name: Part<'a>, stands_for: Path<'a>) {
        self.locals.push(Local { name, stands_for, is_read: false });
    }

    /// Parameters and loop variables have their place, read or not.
    fn declare_read(&mut self, name: Part<'a>, stands_for: Path<'a>) {
        self.locals.push(Local { name, stands_for, is_read: true });
    }

    /// Ends the scopes of all locals but the first ones.
    fn close(&mut self, left: usize) {
        for local in self.locals.drain(left..) {
            if !local.is_read && !local.name.name.starts_with('_') {
                self.uses.push(Use { path: vec![local.name], is_method: false, how: How::Unused });
            }
        }
    }

    fn found(&mut self, path: Vec<Part<'a>>, is_method: bool, how: How) {
        self.uses.push(Use { path, is_method, how });
    }
}

// Statements.
impl<'a> Reader<'a> {
    /// To what ends it, which is not taken.
    fn block(&mut self) {
        let left = self.locals.len();
        self.statements();
        self.close(left);
    }

    fn statements(&mut self) {
        while self.at < self.tokens.len() && !self.is_any(&["end", "else", "elseif", "until"]) {
            let before = self.at;
            self.statement();
            self.at += usize::from(self.at == before);
        }
    }

    fn statement(&mut self) {
        if self.take("local") {
            return if self.take("function") { self.local_function() } else { self.local() };
        }
        if self.take("function") {
            return self.function_statement();
        }
        if self.take("if") || self.take("elseif") {
            return self.branch();
        }
        if self.take("while") {
            self.expression();
            return self.body_of_do();
        }
        if self.take("for") {
            return self.for_loop();
        }
        if self.take("repeat") {
            return self.repeat_loop();
        }
        if self.is("do") {
            return self.body_of_do();
        }
        if self.take("return") {
            if self.at < self.tokens.len() && !self.is_any(&["end", "else", "elseif", "until", ";"]) {
                self.expressions();
            }
            return;
        }
        if self.take("goto") || self.take("::") {
            self.name();
            self.take("::");
            return;
        }
        if self.take("break") || self.take(";") {
            return;
        }
        self.assignment_or_call();
    }

    fn body_of_do(&mut self) {
        self.take("do");
        self.block();
        self.take("end");
    }

    fn branch(&mut self) {
        self.expression();
        self.take("then");
        self.block();
        while self.take("elseif") {
            self.expression();
            self.take("then");
            self.block();
        }
        if self.take("else") {
            self.block();
        }
        self.take("end");
    }

    /// What is behind `until` sees the locals of the block.
    fn repeat_loop(&mut self) {
        let left = self.locals.len();
        self.statements();
        self.take("until");
        self.expression();
        self.close(left);
    }

    fn for_loop(&mut self) {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if !self.take(",") {
                break;
            }
        }
        self.at += usize::from(self.is_any(&["=", "in"]));
        self.expressions();
        let left = self.locals.len();
        names.into_iter().for_each(|name| self.declare_read(name, None));
        self.body_of_do();
        self.close(left);
    }

    fn local_function(&mut self) {
        if let Some(name) = self.name() {
            self.declare(name, None);
        }
        self.function_body(None);
    }

    fn local(&mut self) {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if self.take("<") {
                self.name();
                self.take(">");
            }
            if !self.take(",") {
                break;
            }
        }
        let paths = if self.take("=") { self.expressions() } else { Vec::new() };
        let mut paths = paths.into_iter();
        names.into_iter().for_each(|name| self.declare(name, paths.next().flatten()));
    }

    /// `function a.b:c() … end`.
    fn function_statement(&mut self) {
        let Some(first) = self.name() else { return };
        let mut path = vec![first];
        while self.is_any(&[".", ":"]) {
            self.at += 1;
            path.extend(self.name());
        }
        self.write(path);
        self.function_body(None);
    }

    fn assignment_or_call(&mut self) {
        let mut targets = Vec::new();
        loop {
            let Some(target) = self.suffixed() else { return };
            targets.push(target);
            if !self.take(",") {
                break;
            }
        }
        if !self.take("=") {
            return targets.into_iter().for_each(|(path, _)| self.read(path));
        }
        self.expressions();
        for (path, is_plain) in targets {
            match path {
                Some(path) if is_plain => self.write(path),
                path => self.read(path),
            }
        }
    }
}

// Expressions.
impl<'a> Reader<'a> {
    /// Of each one whether it is a path.
    fn expressions(&mut self) -> Vec<Path<'a>> {
        let mut paths = vec![self.expression()];
        while self.take(",") {
            paths.push(self.expression());
        }
        paths
    }

    fn expression(&mut self) -> Path<'a> {
        if self.depth >= DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let mut path = self.operand();
        while self.binary_operator() {
            self.operand();
            path = None;
        }
        self.depth -= 1;
        path
    }

    fn binary_operator(&mut self) -> bool {
        const OPERATORS: [&str; 21] = [
            "or", "and", "<", ">", "<=", ">=", "~=", "==", "|", "~", "&", "<<", ">>", "..", "+", "-", "*", "/", "//",
            "%", "^",
        ];
        let is_one = self.is_any(&OPERATORS);
        self.at += usize::from(is_one);
        is_one
    }

    fn operand(&mut self) -> Path<'a> {
        let mut is_plain = true;
        while self.is_any(&["not", "-", "#", "~"]) {
            self.at += 1;
            is_plain = false;
        }
        let token = self.tokens.get(self.at).copied()?;
        if self.take("function") {
            self.function_body(None);
        } else if self.is("{") {
            self.table();
        } else if token.kind == TokenKind::Name || token.is("(") {
            let (path, is_path) = self.suffixed()?;
            let known = path.clone().filter(|_| is_path && is_plain).and_then(|path| self.resolved(path));
            self.read(path);
            return known;
        } else if matches!(token.kind, TokenKind::Number | TokenKind::String)
            || self.is_any(&["nil", "true", "false", "..."])
        {
            self.at += 1;
        }
        None
    }

    /// A name or an expression in brackets with all that is behind it: the path at its head, and whether there is nothing but that path. What
    /// is inside brackets and arguments is read; the path itself is the caller's to note.
    fn suffixed(&mut self) -> Option<(Path<'a>, bool)> {
        let mut path = match self.name() {
            Some(name) => Some(vec![name]),
            None if self.take("(") => {
                self.expression();
                self.take(")");
                None
            }
            None => return None,
        };
        let mut is_plain = path.is_some();
        loop {
            if self.is(".") && self.is_name(1) {
                self.at += 1;
                let name = self.name();
                if is_plain && let Some(path) = &mut path {
                    path.extend(name);
                }
            } else if self.is(":") && self.is_name(1) {
                self.at += 1;
                let name = self.name();
                if is_plain && let Some(path) = path.take() {
                    self.method(path, name);
                }
                self.arguments();
                is_plain = false;
            } else if self.is("[") {
                self.at += 1;
                self.expression();
                self.take("]");
                is_plain = false;
            } else if self.begins_arguments() {
                self.arguments();
                is_plain = false;
            } else {
                return Some((path, is_plain));
            }
        }
    }

    fn begins_arguments(&self) -> bool {
        let is_string = self.tokens.get(self.at).is_some_and(|token| token.kind == TokenKind::String);
        is_string || self.is_any(&["(", "{"])
    }

    fn arguments(&mut self) {
        if self.is("{") {
            return self.table();
        }
        if !self.take("(") {
            self.at += usize::from(self.begins_arguments());
            return;
        }
        if !self.is(")") {
            self.expressions();
        }
        self.take(")");
    }

    fn table(&mut self) {
        self.take("{");
        while self.at < self.tokens.len() && !self.is("}") {
            let before = self.at;
            self.field();
            self.at += usize::from(self.is_any(&[",", ";"]) || self.at == before);
        }
        self.take("}");
    }

    fn field(&mut self) {
        let is_named = self.is_name(0) && self.tokens.get(self.at + 1).is_some_and(|token| token.is("="));
        if !is_named {
            if self.take("[") {
                self.expression();
                self.take("]");
                self.take("=");
            }
            self.expression();
            return;
        }
        let key = self.tokens[self.at].text;
        self.at += 2;
        self.keys.push(key);
        if self.is("function") {
            self.at += 1;
            let subject = (self.subject_of)(&self.keys);
            self.function_body(subject);
        } else {
            self.expression();
        }
        self.keys.pop();
    }

    /// From the bracket of its parameters to its `end`. The first parameter stands for `subject`.
    fn function_body(&mut self, subject: Option<&'static str>) {
        let left = self.locals.len();
        let keys = std::mem::take(&mut self.keys);
        self.take("(");
        let mut subject = subject;
        while self.is_name(0) || self.is("...") {
            match self.name() {
                Some(name) => {
                    let stands_for = subject.take().map(|subject| vec![Part { name: subject, ..name }]);
                    self.declare_read(name, stands_for);
                }
                None => self.at += 1,
            }
            self.take(",");
        }
        self.take(")");
        if self.depth < DEPTH_MAX {
            self.depth += 1;
            self.block();
            self.depth -= 1;
        }
        self.take("end");
        self.close(left);
        self.keys = keys;
    }
}

// What paths mean.
impl<'a> Reader<'a> {
    fn local_of(&mut self, name: &str) -> Option<&mut Local<'a>> {
        self.locals.iter_mut().rev().find(|local| local.name.name == name)
    }

    /// With what its first name stands for in its place; `None`: that is some local value.
    fn resolved(&mut self, path: Vec<Part<'a>>) -> Path<'a> {
        let Some(local) = self.local_of(path[0].name) else { return Some(path) };
        local.is_read = true;
        let stands_for = local.stands_for.clone()?;
        Some(stands_for.into_iter().chain(path.into_iter().skip(1)).collect())
    }

    /// A local alone says nothing: what it stands for was read where it was made.
    fn read(&mut self, path: Path<'a>) {
        let Some(path) = path else { return };
        let is_one = path.len() == 1;
        let is_local = self.local_of(path[0].name).is_some();
        let Some(path) = self.resolved(path) else { return };
        if !(is_one && is_local) {
            self.found(path, false, How::Read);
        }
    }

    fn method(&mut self, mut path: Vec<Part<'a>>, name: Option<Part<'a>>) {
        path.extend(name);
        if let Some(path) = self.resolved(path) {
            self.found(path, true, How::Read);
        }
    }

    fn write(&mut self, path: Vec<Part<'a>>) {
        if let [name] = path[..] {
            return match self.local_of(name.name) {
                Some(local) => local.stands_for = None,
                None => self.found(path, false, How::Written),
            };
        }
        if let Some(path) = self.resolved(path) {
            self.found(path, false, How::Written);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn subject(keys: &[&str]) -> Option<&'static str> {
        matches!(keys, ["route"] | ["route", "run"]).then_some("@message")
    }

    #[expect(clippy::needless_pass_by_value, reason = "as expect-test is used")]
    fn check(text: &str, expected: Expect) {
        let mut shown = String::new();
        for Use { path, is_method, how } in uses(text, subject) {
            let names: Vec<&str> = path.iter().map(|part| part.name).collect();
            let last = path.last().expect("a path has a name");
            let mut name = names.join(".");
            if is_method && let Some(dot) = name.rfind('.') {
                name.replace_range(dot..=dot, ":");
            }
            shown += &format!("{}:{} {how:?} {name}\n", last.line, last.column);
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn free_names_are_found_with_what_is_behind_them() {
        check(
            "print(postroad.now(), x.y[z].w, ('a'):rep(3))\ncount = count + 1\nfunction helper(a) return a, b end\n",
            expect![[r#"
                1:1 Read print
                1:16 Read postroad.now
                1:25 Read x.y
                1:27 Read z
                2:1 Written count
                2:9 Read count
                3:10 Written helper
                3:30 Read b
            "#]],
        );
    }

    #[test]
    fn locals_hide_and_stand_for_paths() {
        check(
            "local json, log = postroad.json, postroad.log\nlocal text = json.encod({})\nlog.info(text)\n\
             do local log = 1; print(log) end\njson = nil\njson.decode(1)\nlog.warn 'x'\n",
            expect![[r#"
                1:28 Read postroad.json
                1:43 Read postroad.log
                2:19 Read postroad.json.encod
                3:5 Read postroad.log.info
                4:19 Read print
                7:5 Read postroad.log.warn
            "#]],
        );
    }

    #[test]
    fn locals_that_nobody_reads_are_found() {
        check(
            "local function route(m) return m end\nlocal a, _b = 1, 2\nlocal c = 3\nfor i = 1, 2 do local d = c end\nreturn { x = 1 }",
            expect![[r#"
                1:16 Unused route
                2:7 Unused a
                4:23 Unused d
            "#]],
        );
    }

    #[test]
    fn the_subject_of_a_hook_is_known() {
        check(
            "return {\n  route = { filters = { 'a' }, run = function(message)\n    message.topc = message.topic .. 'x'\n    \
             message:also { topic = message.qos }\n    local m = message\n    return m.payload:sub(1), m:propery('x')\n  end },\n  \
             other = function(message) return message.x end,\n}",
            expect![[r#"
                3:13 Written @message.topc
                3:28 Read @message.topic
                4:13 Read @message:also
                4:36 Read @message.qos
                6:22 Read @message.payload:sub
                6:32 Read @message:propery
            "#]],
        );
    }

    #[test]
    fn every_statement_is_read() {
        check(
            "while a do if b then c() elseif d then e = f else g() end end\nrepeat local h = i until h\n\
             for k, v in pairs(l) do goto out end ::out::\nfor n = o, p do break end\nlocal q <const>, r <close> = s, t\n\
             u.v.w, x[y] = function(...) return ... end, -z ^ #aa\nreturn q, r\n",
            expect![[r#"
                1:7 Read a
                1:15 Read b
                1:22 Read c
                1:33 Read d
                1:40 Written e
                1:44 Read f
                1:51 Read g
                2:18 Read i
                3:13 Read pairs
                3:19 Read l
                4:9 Read o
                4:12 Read p
                5:30 Read s
                5:33 Read t
                6:5 Written u.v.w
                6:8 Read x
                6:10 Read y
                6:46 Read z
                6:51 Read aa
            "#]],
        );
    }

    proptest! {
        /// Whatever the text is, reading it ends.
        #[test]
        fn any_text_is_read(words in prop::collection::vec(prop::sample::select(vec![
            "local", "function", "end", "(", ")", "{", "}", "=", "a", "b.c", ":", "::", ",", "if", "then", "else", "elseif", "for", "in", "do",
            "while", "repeat", "until", "return", "goto", "'x'", "1", "..", "...", "not", "[", "]", "[[", ";", ".", "-",
        ]), 0..60)) {
            let text = words.join(" ");
            let found = uses(&text, subject);
            prop_assert!(found.iter().all(|found| !found.path.is_empty()));
        }

        #[test]
        fn deep_texts_are_read(depth in 0usize..2_000) {
            uses(&format!("return {}", "(".repeat(depth)), subject);
            uses(&"function f() ".repeat(depth), subject);
            uses(&format!("x = {}", "{".repeat(depth)), subject);
            uses(&"do ".repeat(depth), subject);
        }
    }
}
