DROP FUNCTION totalizer.default_organization;
DROP TABLE totalizer.usage_failures, totalizer.usage_aggregations, totalizer.merchant_usage;
