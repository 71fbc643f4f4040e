//! The syntax tree of a Rego file, as the engine's `ast` feature prints it.
//!
//! The engine keeps its tree types private; this is the same shape, read from its JSON form. A node this
//! file does not know, and a tree deeper than the reader's bound of 128 levels, is a refusal of the file:
//! what cannot be checked is not loaded.
#![allow(dead_code, reason = "the tree is mirrored whole; not every field has a reader")]

use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::problem::{Problem, Severity};
use super::source::RegoFile;

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Span {
    pub line: u32,
    pub col: u32,
    pub start: u32,
    pub end: u32,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "the engine's names, which its JSON carries")]
pub(super) enum Expr {
    String { span: Span, value: Value },
    RawString { span: Span, value: Value },
    Number { span: Span, value: Value },
    Bool { span: Span, value: bool },
    Null { span: Span },
    Var { span: Span, value: String },
    Array { span: Span, items: Vec<Expr> },
    Set { span: Span, items: Vec<Expr> },
    Object { span: Span, fields: Vec<(Span, Expr, Expr)> },
    ArrayCompr { span: Span, term: Box<Expr>, query: Query },
    SetCompr { span: Span, term: Box<Expr>, query: Query },
    ObjectCompr { span: Span, key: Box<Expr>, value: Box<Expr>, query: Query },
    Call { span: Span, fcn: Box<Expr>, params: Vec<Expr> },
    UnaryExpr { span: Span, expr: Box<Expr> },
    RefDot { span: Span, refr: Box<Expr>, field: (Span, Value) },
    RefBrack { span: Span, refr: Box<Expr>, index: Box<Expr> },
    BinExpr { span: Span, op: BinOp, lhs: Box<Expr>, rhs: Box<Expr> },
    BoolExpr { span: Span, op: BoolOp, lhs: Box<Expr>, rhs: Box<Expr> },
    ArithExpr { span: Span, op: ArithOp, lhs: Box<Expr>, rhs: Box<Expr> },
    AssignExpr { span: Span, op: AssignOp, lhs: Box<Expr>, rhs: Box<Expr> },
    Membership { span: Span, key: Option<Box<Expr>>, value: Box<Expr>, collection: Box<Expr> },
}

/// Of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum BinOp {
    Intersection,
    Union,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum BoolOp {
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    Ne,
}

/// `Sub` is of sets too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum ArithOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum AssignOp {
    Eq,
    ColEq,
}

#[derive(Debug, Deserialize)]
pub(super) enum Literal {
    SomeVars { vars: Vec<Span> },
    SomeIn { key: Option<Expr>, value: Expr, collection: Expr },
    Expr { expr: Expr },
    NotExpr { expr: Expr },
    Every { key: Option<Span>, value: Span, domain: Expr, query: Query },
}

#[derive(Debug, Deserialize)]
pub(super) struct WithModifier {
    pub span: Span,
    /// What is replaced.
    pub refr: Expr,
    #[serde(rename = "as")]
    pub value: Expr,
}

#[derive(Debug, Deserialize)]
pub(super) struct Statement {
    pub span: Span,
    pub literal: Literal,
    #[serde(default)]
    pub with_mods: Vec<WithModifier>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    pub span: Span,
    pub stmts: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuleAssign {
    pub span: Span,
    pub op: AssignOp,
    pub value: Expr,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuleBody {
    pub span: Span,
    /// Tried only if none before it holds.
    pub is_else: bool,
    pub assign: Option<RuleAssign>,
    pub query: Query,
}

#[derive(Debug, Deserialize)]
pub(super) enum RuleHead {
    Compr { refr: Expr, assign: Option<RuleAssign> },
    Set { refr: Expr, key: Option<Expr> },
    Func { refr: Expr, args: Vec<Expr>, assign: Option<RuleAssign> },
}

#[derive(Debug, Deserialize)]
pub(super) enum Rule {
    Spec { span: Span, head: RuleHead, bodies: Vec<RuleBody> },
    Default { span: Span, refr: Expr, args: Vec<Expr>, op: AssignOp, value: Expr },
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub span: Span,
    pub refr: Expr,
}

#[derive(Debug, Deserialize)]
pub(super) struct Import {
    pub span: Span,
    pub refr: Expr,
    #[serde(default, rename = "as")]
    pub alias: Option<Span>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Module {
    pub package: Package,
    pub imports: Vec<Import>,
    pub rules: Vec<Rule>,
    pub rego_v1: bool,
}

/// A parsed file beside its text.
#[derive(Debug)]
pub(super) struct Parsed {
    pub file: RegoFile,
    pub module: Module,
}

impl Parsed {
    /// Runs the engine's parser on one file. Call on a thread with a large stack.
    pub(super) fn parse(file: &RegoFile) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Entry {
            ast: Module,
        }
        let mut engine = regorus::Engine::new();
        engine
            .add_policy(file.name.to_string(), file.text.to_string())
            .map_err(|e| engine_fault(&[file], "syntax", &e.to_string()))?;
        let json = engine
            .get_ast_as_json()
            .map_err(|e| Fault::of_file(&file.name, "syntax", format!("cannot be examined: {e}")))?;
        let mut entries: Vec<Entry> = serde_json::from_str(&json).map_err(|e| {
            let message = format!("holds syntax that cannot be examined, or nests too deeply: {e}");
            Fault::of_file(&file.name, "syntax", message)
        })?;
        match entries.pop() {
            Some(entry) if entries.is_empty() => Ok(Self { file: file.clone(), module: entry.ast }),
            _ => Err(Fault::of_file(&file.name, "syntax", "is not one module".into())),
        }
    }

    pub(super) fn text(&self, span: Span) -> &str {
        self.file.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// From where to where a statement or a rule stands, in bytes. The engine's spans leave the quotes of a text out, also
    /// where it is the first or the last of a statement; nothing else can stand directly beside one.
    pub(super) fn extent(&self, span: Span) -> (usize, usize) {
        let text = self.file.text.as_bytes();
        let (mut start, mut end) = (span.start as usize, span.end as usize);
        let is_quote = |at: usize| matches!(text.get(at), Some(b'"' | b'`'));
        if start > 0 && is_quote(start - 1) {
            start -= 1;
        }
        if is_quote(end) {
            end += 1;
        }
        (start, end)
    }

    /// The text of a statement or a rule.
    pub(super) fn whole(&self, span: Span) -> &str {
        let (start, end) = self.extent(span);
        self.file.text.get(start..end).unwrap_or_default()
    }

    /// Where a span begins and ends on its line, in characters from 1; the engine counts a tab as four.
    pub(super) fn columns(&self, span: Span) -> (u32, u32) {
        let before = self.file.text.get(..span.start as usize).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let width = self.text(span).lines().next().map_or(0, |text| text.chars().count());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX - 2);
        let column = count(line.chars().count()) + 1;
        (column, column.saturating_add(count(width.max(1))))
    }

    pub(super) fn problem(
        &self,
        span: Span,
        severity: Severity,
        rule: &'static str,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let (column, end_column) = self.columns(span);
        let file = self.file.name.clone();
        Problem { file, line: span.line, column, end_column, severity, rule, message, help }
    }

    pub(super) fn fault(&self, span: Span, rule: &'static str, message: String) -> Fault {
        Fault { file: self.file.name.clone(), line: span.line, column: span.col, rule, message }
    }
}

/// Gives an error of the engine (`--> file:line:column`, the line, `error: what`) its place.
pub(super) fn engine_fault(files: &[&RegoFile], rule: &'static str, error: &str) -> Fault {
    let message = error.rsplit("error: ").next().unwrap_or(error).trim().replace('\n', " ");
    for file in files {
        let Some((_, place)) = error.split_once(&format!("--> {}:", file.name)) else { continue };
        let mut numbers = place.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        if let (Some(Ok(line)), Some(Ok(column))) = (numbers.next(), numbers.next()) {
            return Fault { file: file.name.clone(), line, column, rule, message };
        }
    }
    match files {
        [only] => Fault::of_file(&only.name, rule, message),
        _ => Fault::of_bundle(rule, message),
    }
}

impl Expr {
    pub(super) fn span(&self) -> Span {
        match self {
            Self::String { span, .. }
            | Self::RawString { span, .. }
            | Self::Number { span, .. }
            | Self::Bool { span, .. }
            | Self::Null { span }
            | Self::Var { span, .. }
            | Self::Array { span, .. }
            | Self::Set { span, .. }
            | Self::Object { span, .. }
            | Self::ArrayCompr { span, .. }
            | Self::SetCompr { span, .. }
            | Self::ObjectCompr { span, .. }
            | Self::Call { span, .. }
            | Self::UnaryExpr { span, .. }
            | Self::RefDot { span, .. }
            | Self::RefBrack { span, .. }
            | Self::BinExpr { span, .. }
            | Self::BoolExpr { span, .. }
            | Self::ArithExpr { span, .. }
            | Self::AssignExpr { span, .. }
            | Self::Membership { span, .. } => *span,
        }
    }

    /// The text of a constant string.
    pub(super) fn as_string(&self) -> Option<&str> {
        match self {
            Self::String { value, .. } | Self::RawString { value, .. } => value.as_str(),
            _ => None,
        }
    }

    /// A constant integer, negative ones included.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Number { value, .. } => value.as_i64(),
            Self::UnaryExpr { expr, .. } => expr.as_integer().map(|n| -n),
            _ => None,
        }
    }

    /// The parts of a reference or name, root first.
    pub(super) fn reference(&self) -> Option<Reference<'_>> {
        let mut steps = Vec::new();
        let mut at = self;
        loop {
            match at {
                Self::Var { span, value } => {
                    steps.reverse();
                    return Some(Reference { root: value, root_span: *span, steps });
                }
                Self::RefDot { refr, field, .. } => {
                    steps.push(Step::Name(field.1.as_str()?));
                    at = refr;
                }
                Self::RefBrack { refr, index, .. } => {
                    steps.push(match index.as_string() {
                        Some(name) => Step::Name(name),
                        None => Step::Index(index),
                    });
                    at = refr;
                }
                _ => return None,
            }
        }
    }

    /// Direct parts, comprehension bodies left out.
    pub(super) fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::String { .. }
            | Self::RawString { .. }
            | Self::Number { .. }
            | Self::Bool { .. }
            | Self::Null { .. }
            | Self::Var { .. } => Vec::new(),
            Self::Array { items, .. } | Self::Set { items, .. } => items.iter().collect(),
            Self::Object { fields, .. } => fields.iter().flat_map(|(_, k, v)| [k, v]).collect(),
            Self::ArrayCompr { term, .. } | Self::SetCompr { term, .. } => vec![term],
            Self::ObjectCompr { key, value, .. } => vec![key, value],
            Self::Call { fcn, params, .. } => std::iter::once(&**fcn).chain(params).collect(),
            Self::UnaryExpr { expr, .. } => vec![expr],
            Self::RefDot { refr, .. } => vec![refr],
            Self::RefBrack { refr, index, .. } => vec![refr, index],
            Self::BinExpr { lhs, rhs, .. }
            | Self::BoolExpr { lhs, rhs, .. }
            | Self::ArithExpr { lhs, rhs, .. }
            | Self::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
            Self::Membership { key, value, collection, .. } => {
                key.iter().map(|k| &**k).chain([&**value, &**collection]).collect()
            }
        }
    }
}

impl Query {
    fn each<'a>(&'a self, expr: &mut impl FnMut(&'a Expr), with: &mut impl FnMut(&'a WithModifier)) {
        for statement in &self.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection } => {
                    key.iter().chain([value, collection]).for_each(|part| part.each(expr, with));
                }
                Literal::Expr { expr: own } | Literal::NotExpr { expr: own } => own.each(expr, with),
                Literal::Every { domain, query, .. } => {
                    domain.each(expr, with);
                    query.each(expr, with);
                }
            }
            for modifier in &statement.with_mods {
                with(modifier);
                modifier.value.each(expr, with);
            }
        }
    }
}

impl Expr {
    fn each<'a>(&'a self, expr: &mut impl FnMut(&'a Expr), with: &mut impl FnMut(&'a WithModifier)) {
        expr(self);
        match self {
            Self::ArrayCompr { query, .. }
            | Self::SetCompr { query, .. }
            | Self::ObjectCompr { query, .. } => {
                query.each(expr, with);
            }
            _ => {}
        }
        self.parts().into_iter().for_each(|part| part.each(expr, with));
    }
}

/// `root.name["name"][index]`.
#[derive(Clone, Debug)]
pub(super) struct Reference<'a> {
    pub root: &'a str,
    pub root_span: Span,
    pub steps: Vec<Step<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Name(&'a str),
    /// Anything but a constant string.
    Index(&'a Expr),
}

impl RuleHead {
    pub(super) fn refr(&self) -> &Expr {
        match self {
            Self::Compr { refr, .. } | Self::Set { refr, .. } | Self::Func { refr, .. } => refr,
        }
    }
}

impl Rule {
    pub(super) fn span(&self) -> Span {
        match self {
            Self::Spec { span, .. } | Self::Default { span, .. } => *span,
        }
    }

    pub(super) fn refr(&self) -> &Expr {
        match self {
            Self::Spec { head, .. } => head.refr(),
            Self::Default { refr, .. } => refr,
        }
    }

    /// Every expression of it, also those inside others and inside comprehensions; not what `with` replaces.
    pub(super) fn each_expr<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        self.each(visit, &mut |_| {});
    }

    /// Every `with` of it.
    pub(super) fn each_modifier<'a>(&'a self, visit: &mut impl FnMut(&'a WithModifier)) {
        self.each(&mut |_| {}, visit);
    }

    fn each<'a>(&'a self, expr: &mut impl FnMut(&'a Expr), with: &mut impl FnMut(&'a WithModifier)) {
        let (head, bodies) = match self {
            Self::Default { value, .. } => return value.each(expr, with),
            Self::Spec { head, bodies, .. } => (head, bodies),
        };
        let (assign, key, args) = match head {
            RuleHead::Compr { assign, .. } => (assign.as_ref(), None, &[][..]),
            RuleHead::Func { assign, args, .. } => (assign.as_ref(), None, &args[..]),
            RuleHead::Set { key, .. } => (None, key.as_ref(), &[][..]),
        };
        let terms = assign.map(|assign| &assign.value).into_iter().chain(key).chain(args);
        terms.chain([head.refr()]).for_each(|term| term.each(expr, with));
        for body in bodies {
            body.assign.iter().for_each(|assign| assign.value.each(expr, with));
            body.query.each(expr, with);
        }
    }

    /// The first name of the head: `o` of `o.x[k] := ...`.
    pub(super) fn name(&self) -> &str {
        self.refr().reference().map_or("", |r| r.root)
    }
}
