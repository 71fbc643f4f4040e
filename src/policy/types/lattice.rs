//! The values an expression may have, as a union of kinds.
//!
//! A type is always an over-approximation: what it leaves out cannot happen, what it holds may. So two types
//! that do not meet prove a comparison impossible, and nothing else is ever concluded from one.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::limits;
use crate::model::Json;

/// Empty: no value at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Type {
    /// Anything; the other kinds say nothing then.
    pub any: bool,
    pub null: bool,
    pub boolean: Option<Booleans>,
    pub number: Option<Numbers>,
    pub text: Option<Texts>,
    /// Of its items.
    pub array: Option<Rc<Type>>,
    pub set: Option<Rc<Type>>,
    pub object: Option<Rc<Shape>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Booleans {
    pub yes: bool,
    pub no: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    /// `Some(false)`: fractions are declared to occur. `None`: nobody says.
    pub whole: Option<bool>,
    pub only: Option<BTreeSet<i64>>,
}

/// `None`: every text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts(pub Option<BTreeSet<Arc<str>>>);

/// An object's members.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub members: BTreeMap<Arc<str>, Member>,
    pub rest: Rest,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub ty: Rc<Type>,
    /// Always there.
    pub required: bool,
}

/// The members that are not listed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rest {
    /// There are none.
    Closed,
    /// The schema lists members, and neither allows nor forbids others.
    Undeclared,
    Open(Rc<Type>),
}

/// What a step into a value finds.
pub(super) enum Step {
    /// `certain`: wherever the value is what is stepped into.
    Found {
        ty: Type,
        certain: bool,
    },
    /// A member the schema does not list. With a listed name that it looks like.
    Undeclared {
        meant: Option<Arc<str>>,
    },
    Absent {
        meant: Option<Arc<str>>,
    },
    /// Nothing of this kind has members.
    NotAContainer,
}

impl Type {
    pub(super) fn never() -> Self {
        Self::default()
    }

    pub(super) fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    pub(super) fn null() -> Self {
        Self { null: true, ..Self::default() }
    }

    pub(super) fn boolean() -> Self {
        Self { boolean: Some(Booleans { yes: true, no: true }), ..Self::default() }
    }

    pub(super) fn truth(value: bool) -> Self {
        Self { boolean: Some(Booleans { yes: value, no: !value }), ..Self::default() }
    }

    pub(super) fn number(whole: Option<bool>) -> Self {
        Self { number: Some(Numbers { whole, only: None }), ..Self::default() }
    }

    pub(super) fn integer(value: i64) -> Self {
        let only = Some(BTreeSet::from([value]));
        Self { number: Some(Numbers { whole: Some(true), only }), ..Self::default() }
    }

    pub(super) fn text() -> Self {
        Self { text: Some(Texts(None)), ..Self::default() }
    }

    pub(super) fn texts<'t>(values: impl IntoIterator<Item = &'t str>) -> Self {
        let values = values.into_iter().map(Arc::from).collect();
        Self { text: Some(Texts(Some(values))), ..Self::default() }
    }

    pub(super) fn array(items: Type) -> Self {
        Self { array: Some(Rc::new(items)), ..Self::default() }
    }

    pub(super) fn set(items: Type) -> Self {
        Self { set: Some(Rc::new(items)), ..Self::default() }
    }

    pub(super) fn object(shape: Shape) -> Self {
        Self { object: Some(Rc::new(shape)), ..Self::default() }
    }

    /// An object of which nothing is known.
    pub(super) fn open_object() -> Self {
        Self::object(Shape { members: BTreeMap::new(), rest: Rest::Open(Rc::new(Self::any())) })
    }

    /// Every JSON value: there are no sets.
    pub(super) fn json() -> Self {
        Self {
            any: false,
            null: true,
            boolean: Some(Booleans { yes: true, no: true }),
            number: Some(Numbers { whole: None, only: None }),
            text: Some(Texts(None)),
            array: Some(Rc::new(Self::any())),
            set: None,
            object: Self::open_object().object,
        }
    }

    /// Of a document: its members as they are, its scalars by kind, since the next revision may change them.
    pub(super) fn of_document(value: &Json) -> Self {
        match value {
            Json::Null => Self::null(),
            Json::Bool(_) => Self::boolean(),
            Json::Number(n) => Self::number(Some(n.as_exact_i64().is_some())),
            Json::String(_) => Self::text(),
            Json::Array(items) => Self::array(Self::joined(items.iter().map(Self::of_document))),
            Json::Object(object) => {
                let members = object.members();
                if members.len() > limits::POLICY_TYPE_MEMBERS_MAX {
                    let rest = Self::joined(members.iter().map(|(_, value)| Self::of_document(value)));
                    let rest = Rest::Open(Rc::new(rest));
                    return Self::object(Shape { members: BTreeMap::new(), rest });
                }
                let member = |(name, value): &(Arc<str>, Json)| {
                    (name.clone(), Member { ty: Rc::new(Self::of_document(value)), required: true })
                };
                Self::object(Shape { members: members.iter().map(member).collect(), rest: Rest::Closed })
            }
        }
    }

    /// Exactly this value, where the lattice can hold it.
    pub(super) fn of_constant(value: &Json) -> Self {
        match value {
            Json::Bool(b) => Self::truth(*b),
            Json::Number(n) => n.as_exact_i64().map_or(Self::number(Some(false)), Self::integer),
            Json::String(text) => Self::texts([&**text]),
            Json::Null | Json::Array(_) | Json::Object(_) => Self::of_document(value),
        }
    }

    pub(super) fn joined(types: impl IntoIterator<Item = Type>) -> Self {
        types.into_iter().fold(Self::never(), Self::join)
    }

    pub(super) fn is_never(&self) -> bool {
        *self == Self::default()
    }

    /// Certainly `false`.
    pub(super) fn is_false(&self) -> bool {
        *self == Self::truth(false)
    }

    pub(super) fn join(self, other: Self) -> Self {
        if self.any || other.any {
            return Self::any();
        }
        Self {
            any: false,
            null: self.null || other.null,
            boolean: both(self.boolean, other.boolean, |a, b| Booleans {
                yes: a.yes || b.yes,
                no: a.no || b.no,
            }),
            number: both(self.number, other.number, |a, b| Numbers {
                whole: match (a.whole, b.whole) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    (None, _) | (_, None) => None,
                },
                only: a.only.zip(b.only).map(|(a, b)| a.union(&b).copied().collect()),
            }),
            text: both(self.text, other.text, |a, b| {
                Texts(a.0.zip(b.0).map(|(a, b)| a.union(&b).cloned().collect()))
            }),
            array: both(self.array, other.array, |a, b| Rc::new((*a).clone().join((*b).clone()))),
            set: both(self.set, other.set, |a, b| Rc::new((*a).clone().join((*b).clone()))),
            object: both(self.object, other.object, |a, b| Rc::new(a.join(&b))),
        }
    }

    /// What both may be.
    pub(super) fn meet(&self, other: &Self) -> Self {
        if self.any {
            return other.clone();
        }
        if other.any {
            return self.clone();
        }
        let boolean = common(&self.boolean, &other.boolean, |a, b| {
            let met = Booleans { yes: a.yes && b.yes, no: a.no && b.no };
            (met.yes || met.no).then_some(met)
        });
        let number = common(&self.number, &other.number, |a, b| {
            let only = narrowed(&a.only, &b.only)?;
            Some(Numbers { whole: if a.whole == Some(true) { a.whole } else { b.whole.or(a.whole) }, only })
        });
        Self {
            any: false,
            null: self.null && other.null,
            boolean,
            number,
            text: common(&self.text, &other.text, |a, b| narrowed(&a.0, &b.0).map(Texts)),
            // Empty ones always meet.
            array: common(&self.array, &other.array, |a, b| Some(Rc::new(a.meet(b)))),
            set: common(&self.set, &other.set, |a, b| Some(Rc::new(a.meet(b)))),
            object: common(&self.object, &other.object, |a, b| a.meet(b).map(Rc::new)),
        }
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        !self.meet(other).is_never()
    }

    /// Whether the kinds alone keep the two apart.
    pub(super) fn is_of_other_kind(&self, other: &Self) -> bool {
        !self.any
            && !other.any
            && !self.is_never()
            && !other.is_never()
            && !self.kinds().iter().any(|kind| other.kinds().contains(kind))
    }

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            (self.any, "anything"),
            (self.null, "null"),
            (self.boolean.is_some(), "boolean"),
            (self.number.is_some(), "number"),
            (self.text.is_some(), "string"),
            (self.array.is_some(), "array"),
            (self.set.is_some(), "set"),
            (self.object.is_some(), "object"),
        ];
        kinds.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match (&self.kinds()[..], &self.text, &self.number) {
            (["string"], Some(Texts(Some(only))), _) if only.len() <= SHOWN_MAX => {
                let quoted: Vec<_> = only.iter().map(|text| format!("{text:?}")).collect();
                quoted.join(" or ")
            }
            (["number"], _, Some(Numbers { only: Some(only), .. })) if only.len() <= SHOWN_MAX => {
                only.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
            }
            ([], ..) => "nothing".into(),
            (kinds, ..) => kinds.join(" or "),
        }
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str) -> Step {
        if self.any {
            return Step::Found { ty: Self::any(), certain: false };
        }
        // An element of a set, or the letters of a number as an index: neither is worth a finding.
        if self.set.is_some() {
            return Step::Found { ty: Self::any(), certain: false };
        }
        let Some(shape) = &self.object else {
            return if self.array.is_some() { Step::Absent { meant: None } } else { Step::NotAContainer };
        };
        if let Some(member) = shape.members.get(name) {
            return Step::Found { ty: (*member.ty).clone(), certain: member.required };
        }
        match &shape.rest {
            Rest::Open(ty) => Step::Found { ty: (**ty).clone(), certain: false },
            Rest::Undeclared => Step::Undeclared { meant: meant(name, shape.members.keys()) },
            Rest::Closed => Step::Absent { meant: meant(name, shape.members.keys()) },
        }
    }

    /// What a computed index may find; `None` if nothing, ever.
    pub(super) fn at(&self, index: &Type) -> Option<Type> {
        if self.any {
            return Some(Self::any());
        }
        let mut found = Self::never();
        if let Some(items) = self.array.as_ref().filter(|_| index.any || index.number.is_some()) {
            found = found.join((**items).clone());
        }
        if let Some(items) = &self.set {
            found = found.join((**items).clone());
        }
        if let Some(shape) = self.object.as_ref().filter(|_| index.any || index.text.is_some()) {
            let names = index.text.as_ref().and_then(|texts| texts.0.as_ref());
            let is_meant = |name: &Arc<str>| names.is_none_or(|names| names.contains(name));
            let members = shape.members.iter().filter(|(name, _)| is_meant(name));
            found = found.join(Self::joined(members.map(|(_, member)| (*member.ty).clone())));
            match &shape.rest {
                Rest::Closed => {}
                Rest::Undeclared => return Some(Self::any()),
                Rest::Open(ty) => found = found.join((**ty).clone()),
            }
            // A table with no row yet is no mistake of who reads it.
            if shape.members.is_empty() {
                return Some(Self::any());
            }
        }
        if self.array.as_ref().is_some_and(|items| items.is_never()) {
            return Some(Self::any());
        }
        (!found.is_never()).then_some(found)
    }

    /// Keys and values of an iteration; `None` if it cannot be iterated over.
    pub(super) fn iterated(&self) -> Option<(Type, Type)> {
        if self.any {
            return Some((Self::any(), Self::any()));
        }
        let (mut keys, mut values) = (Self::never(), Self::never());
        if let Some(items) = &self.array {
            keys = keys.join(Self::number(Some(true)));
            values = values.join((**items).clone());
        }
        if let Some(items) = &self.set {
            keys = keys.join((**items).clone());
            values = values.join((**items).clone());
        }
        if let Some(shape) = &self.object {
            keys = keys.join(Self::text());
            values = values.join(shape.any_member());
        }
        let iterates = self.array.is_some() || self.set.is_some() || self.object.is_some();
        let or_any = |ty: Type| if ty.is_never() { Self::any() } else { ty };
        iterates.then(|| (or_any(keys), or_any(values)))
    }
}

const SHOWN_MAX: usize = 6;

impl Shape {
    fn any_member(&self) -> Type {
        let listed = Type::joined(self.members.values().map(|member| (*member.ty).clone()));
        match &self.rest {
            Rest::Closed => listed,
            Rest::Undeclared => Type::any(),
            Rest::Open(ty) => listed.join((**ty).clone()),
        }
    }

    fn join(&self, other: &Self) -> Self {
        let rest = match (&self.rest, &other.rest) {
            (Rest::Open(a), Rest::Open(b)) => Rest::Open(Rc::new((**a).clone().join((**b).clone()))),
            (Rest::Open(ty), _) | (_, Rest::Open(ty)) => Rest::Open(ty.clone()),
            (Rest::Undeclared, _) | (_, Rest::Undeclared) => Rest::Undeclared,
            (Rest::Closed, Rest::Closed) => Rest::Closed,
        };
        let mut members = BTreeMap::new();
        for name in self.members.keys().chain(other.members.keys()) {
            let (mine, theirs) = (self.members.get(name), other.members.get(name));
            let mut ty = Type::never();
            for (member, shape) in [(mine, self), (theirs, other)] {
                ty = match (member, &shape.rest) {
                    (Some(member), _) => ty.join((*member.ty).clone()),
                    (None, Rest::Closed) => ty,
                    (None, Rest::Undeclared) => Type::any(),
                    (None, Rest::Open(rest)) => ty.join((**rest).clone()),
                };
            }
            let required = mine.is_some_and(|m| m.required) && theirs.is_some_and(|m| m.required);
            members.insert(name.clone(), Member { ty: Rc::new(ty), required });
        }
        Self { members, rest }
    }

    fn meet(&self, other: &Self) -> Option<Self> {
        let rest = match (&self.rest, &other.rest) {
            (Rest::Closed, _) | (_, Rest::Closed) => Rest::Closed,
            (Rest::Undeclared, _) | (_, Rest::Undeclared) => Rest::Undeclared,
            (Rest::Open(a), Rest::Open(b)) => Rest::Open(Rc::new(a.meet(b))),
        };
        let mut members = BTreeMap::new();
        for name in self.members.keys().chain(other.members.keys()) {
            let (mine, theirs) = (self.members.get(name), other.members.get(name));
            let mut ty = Type::any();
            for (member, shape) in [(mine, self), (theirs, other)] {
                ty = match (member, &shape.rest) {
                    (Some(member), _) => ty.meet(&member.ty),
                    (None, Rest::Closed) => Type::never(),
                    (None, Rest::Undeclared) => ty,
                    (None, Rest::Open(rest)) => ty.meet(rest),
                };
            }
            let required = mine.is_some_and(|m| m.required) || theirs.is_some_and(|m| m.required);
            match (ty.is_never(), required) {
                (true, true) => return None,
                (true, false) => {}
                (false, _) => drop(members.insert(name.clone(), Member { ty: Rc::new(ty), required })),
            }
        }
        Some(Self { members, rest })
    }
}

/// The name that is meant by one that does not exist.
pub(super) fn meant<'n>(name: &str, known: impl IntoIterator<Item = &'n Arc<str>>) -> Option<Arc<str>> {
    let lower = name.to_lowercase();
    let distance = |known: &Arc<str>| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    let close = |(distance, _): &(usize, &Arc<str>)| *distance <= 1 + name.chars().count() / 5;
    let nearest = known.into_iter().map(|known| (distance(known), known)).filter(close);
    nearest.min_by_key(|(distance, _)| *distance).map(|(_, known)| known.clone())
}

fn both<T>(a: Option<T>, b: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(join(a, b)),
        (a, b) => a.or(b),
    }
}

fn common<T>(a: &Option<T>, b: &Option<T>, meet: impl FnOnce(&T, &T) -> Option<T>) -> Option<T> {
    a.as_ref().zip(b.as_ref()).and_then(|(a, b)| meet(a, b))
}

/// `None` if nothing is left.
fn narrowed<T: Ord + Clone>(a: &Option<BTreeSet<T>>, b: &Option<BTreeSet<T>>) -> Option<Option<BTreeSet<T>>> {
    match (a, b) {
        (None, None) => Some(None),
        (Some(only), None) | (None, Some(only)) => Some(Some(only.clone())),
        (Some(a), Some(b)) => {
            let left: BTreeSet<T> = a.intersection(b).cloned().collect();
            (!left.is_empty()).then_some(Some(left))
        }
    }
}
