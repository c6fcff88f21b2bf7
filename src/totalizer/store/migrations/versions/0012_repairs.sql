-- Rows of rollups that were found wrong and computed anew, and how many the reconciler has looked at.

CREATE TABLE totalizer.repairs (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    repaired_at timestamptz NOT NULL DEFAULT now(),
    repaired_by text NOT NULL,
    found_by text NOT NULL CHECK (found_by IN ('verify', 'reconcile')),
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    rollup text NOT NULL,
    grain text NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    changes jsonb NOT NULL
);
COMMENT ON TABLE totalizer.repairs IS 'Append-only: who had rows of a rollup computed anew that were not what they are made from';
COMMENT ON COLUMN totalizer.repairs.rows IS 'How many rows were wrong';
COMMENT ON COLUMN totalizer.repairs.changes IS 'The first 1000 of them: when, dimensions, what was expected and what was found';
CREATE INDEX repairs_by_time ON totalizer.repairs (repaired_at);
ALTER TABLE totalizer.repairs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_repairs ON totalizer.repairs FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY note_repairs ON totalizer.repairs FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.repairs TO totalizer_app;
GRANT SELECT, INSERT ON totalizer.repairs TO totalizer_refresher;

CREATE TABLE totalizer.reconciled (
    day date NOT NULL,
    rollup text NOT NULL,
    checked bigint NOT NULL,
    mismatched bigint NOT NULL,
    looked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, rollup)
);
COMMENT ON TABLE totalizer.reconciled IS 'By UTC day: how many rows of a rollup the reconciler has computed anew, and how many of them were wrong';
GRANT SELECT, INSERT, UPDATE, DELETE ON totalizer.reconciled TO totalizer_refresher;
