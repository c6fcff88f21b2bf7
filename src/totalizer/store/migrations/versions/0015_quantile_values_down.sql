CREATE OR REPLACE FUNCTION totalizer.quantile_values(state text, quantiles double precision[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (
    WITH counted AS (
        SELECT split_part(pair, ':', 1)::integer AS index, split_part(pair, ':', 2)::bigint AS n
        FROM string_to_table(state, ' ') AS pair
    ), placed AS (
        SELECT index, sum(n) OVER (ORDER BY index) AS up_to, sum(n) OVER () AS total FROM counted
    )
    SELECT jsonb_object_agg('p' || (q::numeric * 100)::double precision, (
        SELECT CASE
            WHEN index = 0 THEN 0
            ELSE sign(index) * exp((abs(index) - 40000) * 0.020000666706669435 + ln(0.99::double precision))
        END
        FROM placed WHERE up_to > floor(q::numeric * (total - 1)) ORDER BY index LIMIT 1
    ))
    FROM unnest(quantiles) AS q
);
