# The labels that values and the session may have

Owner = Literal["values", "session"]
_OWNERS: tuple[Owner, ...] = get_args(Owner)
_FIELDS: tuple[nodes.Field, ...] = get_args(nodes.Field)
_OTHER = "\ue000"  # a label and an argument that no policy names
_UNNAMED = "\ue001"  # a value that is no label
_ALL_ARGUMENTS = "\ue000"
_MOST_CASES = 4_000  # of one condition
_MOST_READERS = 16
_FEW = 3  # names, of which all subsets are tried
_MOST_TRIALS = 100_000  # of one policy
_NO_SETTINGS = PolicySettings()
_UNLABELLED: Mapping[nodes.Field, frozenset[str]] = MappingProxyType(
    {"tags": frozenset(), "producers": frozenset(), "consumers": frozenset({ALL})}
)
_ANY_TRUTH: frozenset[Truth] = frozenset({True, False, None})
_Truths = frozenset[Truth]


@dataclass(slots=True)
class _Names:
    """Names of labels of one field that an owner may have.

    Attributes:
        names: The known names.
        is_open: Whether other names are possible. Of consumers: whether any set of them is.
        has_declared: Whether the labels that tools are said to set are possible, too.
        readers: Sets of consumers that are possible beside everyone.
    """

    names: set[str] = field(default_factory=set)
    is_open: bool = False
    has_declared: bool = False
    readers: set[frozenset[str]] = field(default_factory=set)

    def add(self, other: "_Names") -> None:
        """Add the names that another owner may have."""
        self.names |= other.names
        self.is_open = self.is_open or other.is_open
        self.has_declared = self.has_declared or other.has_declared
        self.add_readers(other.readers)

    def add_readers(self, readers: Collection[frozenset[str]]) -> None:
        """Add sets of consumers, and all their intersections."""
        self.readers |= {one & other for one in readers for other in (one, *self.readers)}
        self.is_open = self.is_open or len(self.readers) > _MOST_READERS


class _SoughtValues(NamedTuple):
    """The values that a condition looks for among labels.

    Attributes:
        owners: Their owners, as scope and argument.
        fields: The fields of these labels.
        texts: The texts that they are compared with, too.
        tests: The positions of the tests that compare them with labels and texts only.
    """

    owners: Sequence[tuple[str, str]]
    fields: Collection[nodes.Field]
    texts: Collection[str]
    tests: Collection[Position]


class PossibleLabels:
    """The labels that values and the session may have, and what conditions can be with them.

    Args:
        policy: The policy.
        way: What it can do.
        settings: The fields of its `X-Policy`.
        declared: Tags and producers that tools set on their results.
        tools: The tools; `None` if they are unknown.
        follows_rules: Whether labels come only from rules, tools and the way; if not, any value
            may have any label.
    """

    def __init__(
        self,
        policy: CheckedPolicy,
        way: Capabilities,
        settings: PolicySettings = _NO_SETTINGS,
        *,
        declared: Collection[str] = (),
        tools: Mapping[str, ToolArguments] | None = None,
        follows_rules: bool = True,
    ) -> None:
        if settings.tags_results is False:
            way = replace(way, non_executable="never")
        self.way = way
        self._policy = policy
        self._tools = tools
        self._follows_rules = follows_rules
        self._trials = _MOST_TRIALS
        self._parts: ConditionParts | None = None
        for tool in policy.tools:
            for check in tool.compiled.checks:
                self._parts = check.parts
            for step in tool.compiled.steps:
                self._parts = step.parts
        may_label = tools is None or any(one.may_label is not False for one in tools.values())
        is_open = may_label or way.any_result_labels or not follows_rules
        self._argument_changes = [
            clause for clause in policy.clauses
            if clause.phase == "before"
            and any(update.target.scope in {"arg", "args"} for update in clause.updates)
        ]  # fmt: skip
        self._session_follows_results = way.argument_labels == "shared" and not any(
            update.target.scope in {"session", "short"}
            for clause in policy.clauses
            if clause.phase == "before"
            for update in clause.updates
        )
        self._denials = [
            clause for clause in policy.clauses
            if clause.rule and (clause.rule.strength, clause.rule.decision) == ("hard", "deny")
        ]  # fmt: skip
        self._possible: dict[tuple[nodes.Field, Owner], _Names] = {
            (field_, owner): _Names(is_open=(is_open and owner == "values") or not follows_rules)
            for field_ in _FIELDS
            for owner in _OWNERS
        }
        self._declared = declared
        if declared:  # such tools may return consumers too
            self._possible["consumers", "values"].is_open = True
        self._possible["tags", "values"].has_declared = True
        self._possible["producers", "values"].has_declared = True
        if way.tool_producers:
            self._possible["producers", "values"].names |= set(tools or ())
        if way.non_executable != "never":
            self._possible["tags", "values"].names.add(NON_EXECUTABLE)
        self._keeps_producers = (
            way.tool_producers
            and way.any_result_labels
            and follows_rules
            and self._only_adds("producers")
        )
        self._produced = {name: self._on_each_result("producers", name) for name in tools or ()}
        # The fields of which the session has only what results have, too.
        copied: set[nodes.Field] = {"tags", "producers"}
        self._copied = copied - {
            update.target.field
            for clause in policy.clauses
            for update in clause.updates
            if owner_of(update.target, clause) == "session"
            and not self._copies_result(update, clause)
        }
        self._is_copy_tagged = way.non_executable == "always" and all(
            isinstance(update.set, nodes.Meta) and self._copies_result(update, clause)
            for clause in policy.clauses
            for update in clause.updates
            if update.target.field == "tags" and owner_of(update.target, clause) == "session"
        )
        self._of_tools = {
            field_: replace(found, names=set(found.names), readers=set(found.readers))
            for (field_, owner), found in self._possible.items()
            if owner == "values"
        }
        self._of_rules: dict[nodes.Field, list[tuple[CheckedTool, _Names]]] = {
            field_: [] for field_ in _FIELDS
        }
        self._sources: dict[tuple[nodes.Field, Owner], list[tuple[_Names, set[str]]]] = {}
        self._follow_rules()
        if follows_rules:
            self._sources = self._find_sources()

    # Names

    def may_have(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether a value or the session may have a label."""
        is_open = self._possible[field, owner].is_open and self._may_be_of_tool(name)
        return is_open or self.is_set(field, owner, name)

    def is_set(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether somebody is known to set a label: a rule, the way, or a tool that declares it."""
        if owner == "values" and (self._is_of_service(name) or self._may_be_tool(field)):
            return True
        possible = self._possible[field, owner]
        return name in possible.names or (possible.has_declared and name in self._declared)

    def is_other_tool(self, field: nodes.Field, name: str) -> bool:
        """Whether a producer is the name of a tool, which is no producer by itself in this way."""
        tool = (self._tools or {}).get(name)
        is_producer = field != "producers" or self.is_set(field, "values", name)
        return tool is not None and tool.may_label is not True and not is_producer

    def _may_be_tool(self, field: nodes.Field) -> bool:
        return field == "producers" and self.way.tool_producers and self._tools is None

    def may_restrict(self, owner: Owner) -> bool:
        """Whether a value or the session may have consumers other than everyone."""
        possible = self._possible["consumers", owner]
        return possible.is_open or bool(possible.readers)

    def relaxed(self, **capabilities: Any) -> Self:
        """The same labels in a way with other capabilities."""
        other = copy.copy(self)
        other.way = replace(self.way, **capabilities)
        other._trials = _MOST_TRIALS  # noqa: SLF001 - of this class
        return other

    def _follow_rules(self) -> None:
        """Add the labels that rules set, until nothing changes."""
        steps = [clause for clause in self._policy.clauses if clause.updates]
        waiting = True
        while waiting:
            waiting = False
            for clause in steps:
                is_reached = is_applied(clause.tool, self.way) and (
                    clause.phase == "before" or not self._is_denied(clause.tool)
                )
                if is_reached and self.truths(clause) != {False}:
                    for update in clause.updates:
                        waiting = self._add(update, clause) or waiting

    def _find_sources(self) -> dict[tuple[nodes.Field, Owner], list[tuple[_Names, set[str]]]]:
        """The names that each step may set, and those that each call with this step sets.

        Only of labels that nobody else sets or removes.
        """
        steps: dict[tuple[nodes.Field, Owner], list[tuple[Clause, nodes.Update]]] = {}
        for clause in self._policy.clauses:
            for update in clause.updates:
                if update.target.scope not in {"arg", "args"}:
                    key = update.target.field, owner_of(update.target, clause)
                    steps.setdefault(key, []).append((clause, update))
        return {
            key: [
                (
                    self._names_in(update.set, clause),
                    self._names_in_copies(update, clause)
                    | {
                        name
                        for other, one in found
                        if other.phase == clause.phase and _is_same_tool(other.tool, clause.tool)
                        if one is update or self.truths(other) == {True}
                        for name in _literals(one) - {NON_EXECUTABLE}
                    },
                )
                for clause, update in found
            ]
            for key, found in steps.items()
            if (key[1] == "session" or not self._possible[key].is_open)
            and all(update.assignment == "|=" for _, update in found)
        }

    def _names_in_copies(self, update: nodes.Update, clause: Clause) -> set[str]:
        """The names that each result has, if an update copies labels of results."""
        source, tools = update.set, clause.tool.known or {}
        if not isinstance(source, nodes.Meta) or not self._copies_result(update, clause):
            return set()
        if source.field == "tags":
            return {NON_EXECUTABLE} if self.way.non_executable == "always" else set()
        is_produced = self._keeps_producers and source.scope == "result" and len(tools) == 1
        return set(tools) if is_produced else set()

    def _is_set_together(
        self, names: frozenset[str], field: nodes.Field, owner: Owner, tested: Collection[str]
    ) -> bool:
        """Whether there may be these names without others: a call sets some names together."""
        by_rules = names - {_OTHER, *self._declared}
        if owner == "values":
            by_rules -= self._of_tools[field].names
        sources = self._sources.get((field, owner))
        return sources is None or all(
            any(
                (name in may_be.names or may_be.is_open or may_be.has_declared)
                and names >= {one if one in tested else _OTHER for one in certain}
                for may_be, certain in sources
            )
            for name in by_rules
            if not name.startswith(RESERVED_PREFIX)
        )

    def _copies_result(self, update: nodes.Update, clause: Clause) -> bool:
        """Whether an update adds labels of a result, or of the arguments that it inherits from."""
        source, field, tools = update.set, update.target.field, clause.tool.known
        if (clause.phase, update.assignment) != ("after", "|="):
            return False
        if isinstance(source, nodes.SetLiteral) and tools:
            return all(_literals(update) <= self._on_each_result(field, name) for name in tools)
        if not isinstance(source, nodes.Meta) or source.field != field:
            return False
        return source.scope == "result" or not self._changes(clause)

    def _only_adds(self, field: nodes.Field) -> bool:
        """Whether no step removes such labels from results."""
        return all(
            update.assignment == "|=" or owner_of(update.target, clause) == "session"
            for clause in self._policy.clauses
            for update in clause.updates
            if update.target.field == field
        )

    def _on_each_result(self, field: nodes.Field, tool: str) -> set[str]:
        """The names that each result of a tool gets."""
        return {
            name
            for clause in self._policy.clauses
            if clause.phase == "result"
            and clause.test is None
            and tool in (clause.tool.known or ())
            for update in clause.updates
            if update.target.field == field and self._only_adds(field)
            for name in _literals(update)
        }

    def _is_denied(self, tool: CheckedTool) -> bool:
        """Whether each call of a tool is denied, with the labels that are known so far."""
        return any(
            self.truths(clause) == {True}
            for clause in self._denials
            if clause.tool is tool or _is_same_tool(clause.tool, tool)
        )

    def _add(self, update: nodes.Update, clause: Clause) -> bool:
        """Add the labels that one update sets; whether any is new."""
        field, target = update.target.field, update.target
        if target.scope in {"arg", "args"}:
            return False  # they are there for the rules of this call only
        owner, added = owner_of(target, clause), _Names()
        known = self._possible[field, owner]
        before = replace(known, names=set(known.names), readers=set(known.readers))
        if field == "consumers":
            _add_consumers(added, known, update)
        elif update.assignment in {"=", "|=", "^="}:
            added = self._names_in(update.set, clause)
        known.add(added)
        if owner == "values":
            self._of_rules[field].append((clause.tool, added))
        return before != known

    def _labels_of(self, field: nodes.Field, owner: Owner, clause: Clause) -> _Names:
        """The labels that the session, or the values of a block's tools, may have.

        If arguments have no labels, no result passes its labels on to the result of another tool.
        """
        if owner == "session" or self.way.argument_labels != "none" or not self._follows_rules:
            return self._possible[field, owner]
        found, tools = _Names(), clause.tool.known
        of_tools = self._of_tools[field]
        if tools is None or any(one.may_label is not False for one in tools.values()):
            found.add(of_tools)
        else:
            found.names |= of_tools.names & {NON_EXECUTABLE}
            found.has_declared = of_tools.has_declared
        for block, added in self._of_rules[field]:
            if block is clause.tool or may_overlap(block, clause.tool):
                found.add(added)
        return found

    def _names_in(self, members: nodes.Set, clause: Clause) -> "_Names":
        found = _Names()
        for element in self._policy.elements(members):
            if isinstance(element, nodes.TextLiteral):
                found.names.add(element.raw)
            elif isinstance(element, nodes.Meta) and self._is_labelled(element):
                found.add(self._labels_of(element.field, owner_of(element, clause), clause))
        return found

    def _is_labelled(self, meta: nodes.Meta) -> bool:
        return meta.scope not in {"arg", "args"} or self.way.argument_labels != "none"

    # Conditions

    def truths(self, clause: Clause) -> _Truths:
        """What the condition of a rule or a step can be: true, false, unknown."""
        if clause.test is None:
            return frozenset({True})
        if self._parts is None:
            return _ANY_TRUTH
        found: set[Truth] = set()
        arguments, values = self._arguments(clause), self._sought_values(clause)
        choices = self._all_choices(clause, values)
        names = {_UNNAMED, *values.texts, *chain(*chain(*choices.values()))} - {ALL}
        number = math.prod(map(len, choices.values())) * len(names) ** len(values.owners)
        if number > min(_MOST_CASES, self._trials):
            return _ANY_TRUTH
        self._trials -= number
        for chosen in product(*choices.values()):
            labels = dict(zip(choices, chosen, strict=True))
            if not self._is_consistent(labels):
                continue
            for texts in product(names, repeat=len(values.owners)):
                chosen_values = dict(zip(values.owners, texts, strict=True))
                context = self._context(labels, chosen_values, clause, arguments)
                found |= self._truths(clause.node.condition, context, values.tests)
            if found >= {True, False}:
                break
        return frozenset(found)

    def _truths(
        self, node: Any, context: EvaluationContext, decided: Collection[Position]
    ) -> _Truths:
        match node:
            case nodes.Name(name=name):
                bound = self._policy.bindings.get(name)
                return self._truths(bound.value, context, decided) if bound else _ANY_TRUTH
            case nodes.Not(inner=inner):
                return frozenset(map(negated, self._truths(inner, context, decided)))
            case nodes.And(parts=parts) | nodes.Or(parts=parts):
                join = both if isinstance(node, nodes.And) else either
                found = (self._truths(part, context, decided) for part in parts)
                return reduce(
                    lambda left, right: frozenset(
                        join(one, other) for one in left for other in right
                    ),
                    found,
                )
            case nodes.Membership(value=nodes.ValueRef()) | nodes.Equality():
                if node.at not in decided:
                    return frozenset({True, False})
        test = self._parts and self._parts.tests.get(node.at)
        return frozenset({test(context)}) if test else _ANY_TRUTH

    def _sought_values(self, clause: Clause) -> _SoughtValues:
        """The values that a condition looks for among labels."""
        tests = [
            (test.at, {(one.scope, one.argument) for one in elements if _is_value(one)}, elements)
            for test, elements in self._policy.label_reads(clause).tests
        ]
        has_no_value = self._follows_rules and _returns_objects(clause)
        unknown = {("result", "")} if has_no_value else set()
        sought = [
            (owner, meta.field)
            for _, found, elements in tests for meta in metas_in(elements)
            for owner in found - unknown
        ]  # fmt: skip
        owners = {owner for owner, _ in sought}
        decided = [
            (at, elements) for at, found, elements in tests
            if found & unknown or (found and found <= owners and all(map(_is_name, elements)))
        ]  # fmt: skip
        texts = {
            one.raw for _, elements in decided for one in elements
            if isinstance(one, nodes.TextLiteral)
        }  # fmt: skip
        fields = {field_ for _, field_ in sought}
        return _SoughtValues(sorted(owners), fields, texts, {at for at, _ in decided})

    def _arguments(self, clause: Clause) -> dict[str, None]:
        """The arguments that a condition names, and one for all others if it tests `@args`."""
        metas = self._policy.label_reads(clause).metas
        found = dict.fromkeys(meta.argument for meta in metas if meta.scope == "arg")
        if any(meta.scope == "args" for meta in metas):
            found[_ALL_ARGUMENTS] = None
            found |= {name: None for name, _ in self._changes(clause) if name}
        return found

    def _all_choices(
        self, clause: Clause, values: _SoughtValues
    ) -> dict[tuple[str, str, nodes.Field], Sequence[frozenset[str]]]:
        """The sets of labels that each owner may have, by scope, argument and field."""
        found: dict[tuple[str, str, nodes.Field], Sequence[frozenset[str]]] = {}
        for meta in self._policy.label_reads(clause).metas:
            for scope, argument in self._owners_of(meta, clause):
                key = scope, argument, meta.field
                if key not in found:
                    texts = values.texts if meta.field in values.fields else ()
                    found[key] = self._choices(*key, clause, texts)
        return found

    def _owners_of(self, meta: nodes.Meta, clause: Clause) -> Iterator[tuple[str, str]]:
        """The owners of labels, as scope and argument; `added` are labels of a change."""
        if meta.scope in {"arg", "args"}:
            names = self._arguments(clause) if meta.scope == "args" else (meta.argument,)
            for name in names:
                yield "arg", self._place(name)
                if meta.field in self._changed_arguments(clause, name):
                    yield "added", name
        elif scope := _scope(meta, clause):
            yield scope, ""

    def _place(self, argument: str) -> str:
        """The argument itself, or one name for all arguments if they share their labels."""
        return _ALL_ARGUMENTS if self.way.argument_labels == "shared" else argument

    def _is_consistent(self, labels: Mapping[tuple[str, str, nodes.Field], frozenset[str]]) -> bool:
        """Whether one value or session may have all these labels at once.

        If each result gets some label, a value without it comes from no result, so it has no labels
        at all. If the model has read no result, no call that ended has changed the session. What
        the session has from results, the arguments have, if they have the labels of all results.
        """
        if self.way.argument_labels == "shared":
            for field_ in self._copied:
                of_arguments = labels.get(("arg", _ALL_ARGUMENTS, field_))
                of_session = labels.get(("session", "", field_), frozenset())
                if of_arguments is not None and not of_session <= of_arguments:
                    return False
        owners = {(scope, argument) for scope, argument, _ in labels}
        is_changed = any(
            scope == "session" and names != _UNLABELLED[field_]
            for (scope, _, field_), names in labels.items()
        )
        for scope, argument in owners:
            found = {
                field_: labels[scope, argument, field_]
                for field_ in _FIELDS
                if (scope, argument, field_) in labels
            }
            is_labelled = any(found[field_] != _UNLABELLED[field_] for field_ in found) or (
                is_changed and argument == _ALL_ARGUMENTS and self._session_follows_results
            )
            if scope == "arg" and is_labelled and not self._may_be_of_result(found):
                return False
        return True

    def _may_be_of_result(self, labels: Mapping[nodes.Field, frozenset[str]]) -> bool:
        """Whether labels, of which some may not be in question, are those of some result."""
        is_tagged = self.way.non_executable == "always" and "tags" in labels
        if is_tagged and NON_EXECUTABLE not in labels["tags"]:
            return False
        producers = labels.get("producers")
        if producers is None or not self._keeps_producers:
            return True
        if self._tools is None or _OTHER in producers:
            return bool(producers)
        return any(producers >= {name, *self._produced[name]} for name in self._tools)

    def _context(
        self,
        labels: Mapping[tuple[str, str, nodes.Field], frozenset[str]],
        values: Mapping[tuple[str, str], str],
        clause: Clause,
        arguments: Collection[str],
    ) -> EvaluationContext:
        def of(scope: str, argument: str = "") -> Labels:
            found = {
                field_: labels[scope, argument, field_]
                for field_ in _FIELDS
                if (scope, argument, field_) in labels
            }
            return replace(Labels(), **found)

        call = Call(
            "",
            {
                name: Argument(
                    values.get(("arg", name), MISSING),
                    of("arg", self._place(owner)).join(of("added", owner)),
                )
                for name, owner in (
                    # A value whose labels are not in question is one of `@args`.
                    *((name, _ALL_ARGUMENTS) for scope, name in values if scope == "arg"),
                    *((name, name) for name in arguments),
                )
            },
        )
        value = values.get(("result", ""), MISSING)
        result = None if clause.phase in {None, "before"} else Argument(value, of("result"))
        context = EvaluationContext(call, of("session"), result)
        context.set_short_scope(_short_scope(clause))
        return context

    def _choices(
        self,
        scope: str,
        argument: str,
        field_: nodes.Field,
        clause: Clause,
        texts: Collection[str],
    ) -> Sequence[frozenset[str]]:
        """The sets of labels of one owner that a condition can distinguish."""
        possible = _Names()
        is_value = scope == "result" or (scope == "arg" and self.way.argument_labels != "none")
        if is_value or scope == "session":
            possible = self._labels_of(field_, "values" if is_value else "session", clause)
        elif scope == "added":
            possible = self._changed_arguments(clause, argument)[field_]
        tested = {
            *texts,
            *self._compared_names(field_, clause),
            *self._policy.label_reads(clause).names.get(field_, ()),
            *(name for change in self._changed_names(clause, field_) for name in change),
        }
        if field_ == "consumers":
            return _readers(tested - {ALL}, possible)
        may_be_other = possible.is_open or (is_value and self._may_be_tool(field_))
        relevant = sorted(
            name for name in tested
            if (may_be_other and self._may_be_of_tool(name)) or name in possible.names
            or (possible.has_declared and name in self._declared)
            or (is_value and self._is_of_service(name))
        )  # fmt: skip
        is_tagged = field_ == "tags" and is_value and self.way.non_executable == "always"
        has_rest = bool(
            may_be_other
            or possible.names - tested - ({NON_EXECUTABLE} if is_tagged else set())
            or (possible.has_declared and self._declared)
        )
        sets = [
            frozenset({*shape, *others})
            for shape in _shapes(relevant)
            for others in ([[], [_OTHER]] if has_rest else [[]])
        ]
        if clause.rule and scope in {"arg", "session"} and len(relevant) <= _FEW:
            owner: Owner = "values" if is_value else "session"
            sets = [one for one in sets if self._is_set_together(one, field_, owner, tested)]
        if scope == "added":
            certain = self._certain_changes(clause, argument, field_)
            sets = [one | certain for one in sets]
        if is_tagged:
            sets = _tagged(sets, scope, clause)
        elif (scope, field_) == ("session", "tags") and self._is_copy_tagged:
            sets = [one | {NON_EXECUTABLE} if one else one for one in sets]
        return list(dict.fromkeys(sets))

    def _compared_names(self, field_: nodes.Field, clause: Clause) -> set[str]:
        """Names that two owners may both have, if the condition compares their labels."""
        names: set[str] = set()
        for _, elements in self._policy.label_reads(clause).tests:
            owners = [meta for meta in metas_in(elements) if meta.field == field_]
            if len(owners) > 1:
                for owner in _OWNERS:
                    names |= self._possible[field_, owner].names
        return names if len(names) <= _FEW else names & {NON_EXECUTABLE}

    def _may_be_of_tool(self, name: str) -> bool:
        """Whether a tool may set a label: names of the service are refused in labels of tools."""
        return not (self._follows_rules and name.startswith(RESERVED_PREFIX))

    def _is_of_service(self, name: str) -> bool:
        is_reserved = name.startswith(RESERVED_PREFIX) and name != NON_EXECUTABLE
        return is_reserved and self.way.service_labels

    # Changes of arguments before the call

    def _changes(self, clause: Clause) -> list[tuple[str, nodes.Update]]:
        """The changes of arguments that a call of the tool may make before it is checked."""
        return [
            (update.target.argument, update)
            for other in self._argument_changes
            if other.tool is clause.tool or may_overlap(other.tool, clause.tool)
            for update in other.updates
            if update.target.scope in {"arg", "args"}
        ]

    def _changed_arguments(self, clause: Clause, argument: str) -> dict[nodes.Field, "_Names"]:
        """The labels that such changes add to one argument, by field."""
        found: dict[nodes.Field, _Names] = {}
        for name, update in self._changes(clause):
            if name in {"", argument}:
                field = update.target.field
                added = found.setdefault(field, _Names(is_open=field == "consumers"))
                added.add(self._names_in(update.set, clause))
        return found

    def _changed_names(self, clause: Clause, field: nodes.Field) -> Iterator[set[str]]:
        for _, update in self._changes(clause):
            if update.target.field == field:
                yield self._names_in(update.set, clause).names

    def _certain_changes(self, clause: Clause, argument: str, field: nodes.Field) -> set[str]:
        """The names that each call of the tool adds to one argument before it is checked."""
        return {
            name
            for other in self._argument_changes
            if other.test is None and _is_same_tool(other.tool, clause.tool)
            for update in other.updates
            if update.target.scope == "arg"
            and (update.target.argument, update.target.field) == (argument, field)
            and update.assignment in {"=", "|="}
            for name in _literals(update)
        }  # fmt: skip

    def changes_argument(self, clause: Clause, meta: nodes.Meta) -> bool:
        """Whether a call may change these labels of its arguments before it is checked."""
        return any(
            update.target.field == meta.field
            and (meta.scope == "args" or name in {"", meta.argument})
            for name, update in self._changes(clause)
        )


def _add_consumers(added: _Names, known: _Names, update: nodes.Update) -> None:
    """Add the consumers after an update of known ones: a listed set, or any."""
    readers = frozenset(_literals(update))
    grows = update.assignment == "|=" and not known.readers <= {readers}
    if not readers or update.assignment not in {"=", "&=", "|="} or grows:
        added.is_open = True
    elif ALL not in readers:
        added.add_readers({readers})


def _literals(update: nodes.Update) -> set[str]:
    """The names of a set that an update lists."""
    listed = update.set.elements if isinstance(update.set, nodes.SetLiteral) else ()
    return {one.raw for one in listed if isinstance(one, nodes.TextLiteral)}


def _is_same_tool(block: CheckedTool, other: CheckedTool) -> bool:
    """Whether two blocks have the same name or regex."""
    one, two = block.node.tool.text, other.node.tool.text
    return (one.kind, one.raw) == (two.kind, two.raw)


def owner_of(meta: nodes.Meta, clause: Clause) -> Owner:
    """The owner of labels: values, whose labels results inherit, or the session."""
    is_short = meta.scope == "short" and clause.phase != "result"
    return "session" if meta.scope == "session" or is_short else "values"


def _scope(meta: nodes.Meta, clause: Clause) -> str:
    """The owner of labels that are not those of arguments; empty if it is unknown."""
    return _short_scope(clause) if meta.scope == "short" else meta.scope


def _short_scope(clause: Clause) -> str:
    """What the short form means in a condition; empty if it has no known meaning."""
    if clause.phase is None or isinstance(clause.tool.node, nodes.OneLiner):
        return ""
    return "result" if clause.phase == "result" else "session"


def _readers(tested: Collection[str], possible: _Names) -> list[frozenset[str]]:
    """Sets of consumers that every test tells apart."""
    some = [*possible.readers]
    if possible.is_open:
        some += [frozenset(shape) for shape in _shapes(sorted(tested))]
        some += [one | {_OTHER} for one in some]
    return list(dict.fromkeys([frozenset({ALL}), *some]))


def _shapes(names: Sequence[str]) -> list[Sequence[str]]:
    """Subsets that every test of labels tells apart: all of few names, some of many."""
    if len(names) <= _FEW:
        return [some for n in range(len(names) + 1) for some in itertools.combinations(names, n)]
    single = [[name] for name in names[:16]]
    without = [[other for other in names if other != name] for name in names[:16]]
    return [[], *single, *without, names]


def _tagged(sets: Sequence[frozenset[str]], scope: str, clause: Clause) -> list[frozenset[str]]:
    """Sets of tags where each result gets `__non_executable` after the `result` rules.

    An argument either has no labels, as a text of the user, or those of some result.
    """
    tagged = [one | {NON_EXECUTABLE} for one in sets]
    if scope == "result":
        return tagged if clause.phase == "after" else [*sets, *tagged]
    return [frozenset(), *tagged]


def _is_value(element: object) -> TypeGuard[nodes.ValueRef]:
    return isinstance(element, nodes.ValueRef)


def _is_name(element: object) -> bool:
    """Whether an element is a text without escapes, or what is compared with such texts."""
    if isinstance(element, nodes.TextLiteral):
        return element.kind == "plain" and "\\" not in element.raw
    return isinstance(element, nodes.Meta | nodes.ValueRef)


def _returns_objects(clause: Clause) -> bool:
    """Whether the results of a block's tools are known to be objects, which no rule can search."""
    known = clause.tool.known or {}
    return bool(known) and all(one.returns.get("type") == "object" for one in known.values())


