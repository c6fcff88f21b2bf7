DROP TABLE totalizer.reconciled, totalizer.repairs;
